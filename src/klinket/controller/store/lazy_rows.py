"""Rows of a query as a sequence: counted once, and only the parts that are asked for are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

from sqlalchemy import ColumnElement

R = TypeVar("R")
Conditions = list[ColumnElement[bool]]
Order = list[ColumnElement[Any]]


class LazyRows(Sequence[R]):
    """Rows that meet conditions. `part(conditions, order, start, size)` reads some of them, all where size is None."""

    def __init__(
        self,
        number_of: Callable[[Conditions], int],
        part: Callable[[Conditions, Order, int, int | None], list[R]],
        conditions: Conditions,
        order: Order,
    ) -> None:
        self._number_of = number_of
        self._read = part
        self._conditions = conditions
        self._order = order
        self._count: int | None = None

    def __len__(self) -> int:
        if self._count is None:
            self._count = self._number_of(self._conditions)
        return self._count

    @overload
    def __getitem__(self, index: int) -> R: ...

    @overload
    def __getitem__(self, index: slice) -> list[R]: ...

    def __getitem__(self, index: int | slice) -> R | list[R]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._part(start, max(0, stop - start))[::step]
        return self._part(range(len(self))[index], 1)[0]

    def __iter__(self) -> Iterator[R]:
        return iter(self._part(0, None))

    def _part(self, start: int, size: int | None) -> list[R]:
        return self._read(self._conditions, self._order, start, size)
