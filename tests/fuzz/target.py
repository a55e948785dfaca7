"""What a fuzz target is: some bytes of an outsider's, given to parsers that may refuse them in one way only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klinket.domain.errors import KlinketError

CORPUS = Path(__file__).parent / "corpus"
#: Bytes of an input that is kept, and inputs kept of a target.
MAX_KEPT_BYTES, MAX_KEPT = 512, 60


@dataclass(frozen=True)
class Target:
    """`parsers`: "module:qualified name" below klinket of each parser that `run` leads bytes into.

    `run` raises for what must never be: an error that is no refusal, or a result that breaks a rule. `seeds`: inputs that get
    deep into the parsers.
    """

    name: str
    run: Callable[[bytes], None]
    parsers: tuple[str, ...]
    seeds: Callable[[], Sequence[bytes]]

    @property
    def kept(self) -> list[bytes]:
        """Return the inputs of the kept corpus: a line of hexadecimal digits each."""
        path = CORPUS / f"{self.name}.txt"
        return [bytes.fromhex(line) for line in path.read_text().split()] if path.exists() else []


def attempt(parser: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what a parser makes of its arguments, or None where it refuses them with an error of klinket's."""
    try:
        return parser(*arguments, **named)
    except KlinketError as refused:
        if not refused.message:
            raise AssertionError("a refusal without a word") from refused
        return None


def as_text(data: bytes) -> str:
    """Return a text with every character there is, lone surrogates too."""
    return data.decode("utf-8", "surrogateescape")
