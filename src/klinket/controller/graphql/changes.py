"""Sets of ids in update mutations: one list replaces the set, or added* and removed* change it (the contract's comments)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from klinket.controller.graphql import deadline

_T = TypeVar("_T")

#: Finds the row of a global id as a caller wrote it; raises NotFound.
Find = Callable[[str], _T]


def given_rows(ids: list[str | None] | None, find: Find[_T]) -> list[_T]:
    """Return the rows of a list argument; null items, a null list and an absent one name nothing."""
    found = []
    for id in ids or ():
        if id is not None:
            deadline.check()
            found.append(find(id))
    return found


def wanted_ids(
    before: Iterable[int],
    find: Find[Any],
    *,
    replace: list[str | None] | None,
    added: list[str | None] | None,
    removed: list[str | None] | None,
) -> set[int]:
    """Return the ids of the set after the update: replaced first, then added to, then removed from."""
    ids = set(before) if replace is None else {row.id for row in given_rows(replace, find)}
    ids |= {row.id for row in given_rows(added, find)}
    return ids - {row.id for row in given_rows(removed, find)}
