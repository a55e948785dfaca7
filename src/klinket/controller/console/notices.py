"""What a page says once, above its content: that something was done, and how to undo it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Sessions whose notices are kept, and notices of one.
MAX_SESSIONS = 1_000
MAX_NOTICES = 5


@dataclass(frozen=True, slots=True)
class Undo:
    """A form that undoes what was done: where to (below the console's root), and its fields."""

    path: str
    fields: Mapping[str, str] = field(default_factory=dict)
    label: str = "Undo"


@dataclass(frozen=True, slots=True)
class Notice:
    """`kind`: "done", "warning". `cut`: id of a cut whose receipt the page shows as it comes in."""

    text: str
    kind: str = "done"
    undo: Undo | None = None
    cut: int | None = None


class Notices:
    """Notices of sessions until they are shown; a restart forgets them, they only repeat what the pages show anyway."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[Notice]] = {}

    def add(self, session: int, notice: Notice) -> None:
        """Keep a notice for the next page of a session."""
        waiting = self._waiting.setdefault(session, [])
        waiting.append(notice)
        del waiting[:-MAX_NOTICES]
        while len(self._waiting) > MAX_SESSIONS:
            del self._waiting[next(iter(self._waiting))]

    def take(self, session: int) -> list[Notice]:
        """Return the notices of a session, once."""
        return self._waiting.pop(session, [])
