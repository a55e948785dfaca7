"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """`WARN`: it works, and will not for long, or not well."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """`name`: of the check, stable; `text`: what was found; `next`: what to do, "" where there is nothing."""

    name: str
    outcome: Outcome
    text: str
    next: str = ""

    def document(self) -> dict[str, str]:
        """Return it JSON-ready."""
        return {"name": self.name, "outcome": self.outcome.value, "text": self.text, "next": self.next}


def ok(name: str, text: str) -> Finding:
    return Finding(name, Outcome.OK, text)


def warn(name: str, text: str, next: str) -> Finding:
    return Finding(name, Outcome.WARN, text, next)


def fail(name: str, text: str, next: str) -> Finding:
    return Finding(name, Outcome.FAIL, text, next)
