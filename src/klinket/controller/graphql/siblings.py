"""Rows that one answer shows side by side: what hangs on one of them is read for all of them with one statement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from klinket.controller.app.ports import Repository

_C = TypeVar("_C")

#: Ids in one statement.
CHUNK_IDS = 5_000


class Siblings:
    """What one request has read so far. A mutation clears it."""

    def __init__(self) -> None:
        self._seen: dict[type, dict[Any, Any]] = defaultdict(dict)
        self._parents: dict[int, dict[Any, Any]] = defaultdict(dict)
        self._children: dict[tuple[int, str], dict[Any, list[Any]]] = defaultdict(dict)

    def clear(self) -> None:
        """Forget everything: it may have changed."""
        self._seen.clear()
        self._parents.clear()
        self._children.clear()

    def saw(self, rows: Iterable[Any]) -> None:
        """Remember rows that will be shown together."""
        for row in rows:
            self._seen[type(row)][row.id] = row

    def parent(self, row: Any, column: str, repository: Repository[_C]) -> _C | None:
        """Return the row that `row`'s `column` names, read together with those of its siblings; None for null."""
        wanted = getattr(row, column)
        if wanted is None:
            return None
        known = self._parents[id(repository)]
        if wanted not in known:
            ids = {getattr(sibling, column) for sibling in self._seen[type(row)].values()} - {None} - known.keys()
            for chunk in _chunks(ids | {wanted}):
                found = repository.find(id=chunk)
                self.saw(found)
                known.update((one.id, one) for one in found)  # type: ignore[attr-defined]
        return known.get(wanted)

    def across(self, links: Iterable[Any], column: str, repository: Repository[_C]) -> list[_C]:
        """Return the rows at the other end of link rows, by id."""
        found = [self.parent(link, column, repository) for link in links]
        return sorted((row for row in found if row is not None), key=lambda row: row.id)  # type: ignore[attr-defined]

    def children(self, row: Any, repository: Repository[_C], column: str) -> list[_C]:
        """Return the rows whose `column` names `row`, by id, read together with those of its siblings."""
        known = self._children[id(repository), column]
        if row.id not in known:
            ids = (self._seen[type(row)].keys() | {row.id}) - known.keys()
            known.update((one, []) for one in ids)
            for chunk in _chunks(ids):
                found = repository.find(**{column: chunk})
                self.saw(found)
                for child in found:
                    known[getattr(child, column)].append(child)
        return known[row.id]


def _chunks(ids: Iterable[Any]) -> Iterator[list[Any]]:
    listed = sorted(ids)
    for start in range(0, len(listed), CHUNK_IDS):
        yield listed[start : start + CHUNK_IDS]
