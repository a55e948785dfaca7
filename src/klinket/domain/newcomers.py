"""What has come and has shown nothing yet, by its source: when there is too much of it, a flood displaces itself."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Newcomers(Generic[T]):
    """Whatever waits, each source's oldest first. Every call takes as long with many sources as with few."""

    def __init__(self) -> None:
        self._of: dict[str, dict[T, None]] = {}
        self._count = 0
        #: The sources that have so many waiting, and the highest such number.
        self._with: dict[int, dict[str, None]] = {}
        self._most = 0

    def __len__(self) -> int:
        return self._count

    def of(self, source: str) -> int:
        """Return how many of a source wait."""
        return len(self._of.get(source, ()))

    def add(self, source: str, one: T) -> None:
        """Have one more wait, as the newest of its source."""
        waiting = self._of.setdefault(source, {})
        if one in waiting:
            return
        waiting[one] = None
        self._count += 1
        self._moved(source, len(waiting) - 1, len(waiting))

    def remove(self, source: str, one: T) -> bool:
        """Have one wait no more; returns whether it did."""
        waiting = self._of.get(source)
        if waiting is None or one not in waiting:
            return False
        del waiting[one]
        self._count -= 1
        if not waiting:
            del self._of[source]
        self._moved(source, len(waiting) + 1, len(waiting))
        return True

    def oldest(self, source: str) -> T | None:
        """Return what waits for longest of a source, or None."""
        return next(iter(self._of.get(source, ())), None)

    def biggest(self) -> str | None:
        """Return the source of which the most wait (of several, the one that came to it first), or None."""
        return next(iter(self._with.get(self._most, ())), None)

    def make_room(self, source: str, most: int, most_of_source: int) -> tuple[str, T] | None:
        """Take out, and return with its source, what gives way for one more of `source`; None where there is room.

        That is the oldest of the source where it has `most_of_source`, else that of the biggest where `most` wait in all.
        """
        if self.of(source) < most_of_source:
            biggest = self.biggest() if self._count >= most else None
            if biggest is None:
                return None
            source = biggest
        oldest = self.oldest(source)
        if oldest is None:
            return None
        self.remove(source, oldest)
        return source, oldest

    def all(self) -> list[tuple[str, T]]:
        """Return everything that waits, with its source."""
        return [(source, one) for source, waiting in self._of.items() for one in waiting]

    def _moved(self, source: str, before: int, now: int) -> None:
        if before:
            left = self._with[before]
            del left[source]
            if not left:
                del self._with[before]
        if now:
            self._with.setdefault(now, {})[source] = None
        if now > self._most or self._most not in self._with:
            self._most = now  # by one: from the number that `source` had alone, to the one it has
