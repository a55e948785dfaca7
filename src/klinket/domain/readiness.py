"""Whether a part is usable now, and if not, why: what `/ready` answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unready:
    """One reason: a stable `code` word, and a sentence for people."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """No reason means ready."""

    reasons: tuple[Unready, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Return whether the part is usable."""
        return not self.reasons

    def document(self) -> dict[str, object]:
        """Return what `/ready` answers, JSON-ready."""
        if self.is_ready:
            return {"status": "ready"}
        return {"status": "not-ready", "reasons": [{"code": one.code, "text": one.text} for one in self.reasons]}


def readiness(*conditions: tuple[bool, str, str]) -> Readiness:
    """Return what is missing of the conditions: (is met, code, text)."""
    return Readiness(tuple(Unready(code, text) for met, code, text in conditions if not met))
