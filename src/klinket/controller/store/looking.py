"""Looking through a long table in the order of one column: how far is bounded, whatever few rows meet the conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Text, case, cast, literal, or_, select, tuple_

from klinket.controller.app.ports import Position

#: Rows that are looked at first; mostly they are enough.
FIRST_LOOK = 200
_GROWTH = 8
Conditions = list[ColumnElement[bool]]


def contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return whether a column (also one of JSON, as it is written) has a text in it, in any case."""
    return cast(column, Text).icontains(text, autoescape=True)


def beginning_first(columns: Sequence[ColumnElement[Any]], text: str) -> ColumnElement[int]:
    """Return an order: rows of which one column begins with a text come before the others."""
    return case((or_(*(column.istartswith(text, autoescape=True) for column in columns)), 0), else_=1)


def look_through(
    connection: Connection,
    columns: Sequence[ColumnElement[Any]],
    by: tuple[ColumnElement[Any], ColumnElement[Any]],
    looked: Conditions,
    wanted: Callable[[Any], Conditions],
    *,
    limit: int,
    at_most: int,
    before: Position | None,
    after: Position | None,
) -> tuple[Sequence[Row[Any]], Position | None]:
    """Return up to `limit` rows, looking at no more than `at_most`, and where that ended (as Repository.look_through).

    `by`: the columns of the order; `looked`: which rows are looked at; `wanted(columns)`: conditions of what is returned.
    """
    looked = list(looked)
    if after is not None:
        looked.append(tuple_(*by) > tuple_(*(literal(value) for value in after)))
    elif before is not None:
        looked.append(tuple_(*by) < tuple_(*(literal(value) for value in before)))

    def ordered(columns: Iterable[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
        return [column if after is not None else column.desc() for column in columns]

    places = [next(place for place, column in enumerate(columns) if column is one) for one in by]
    size = min(at_most, max(FIRST_LOOK, 4 * limit))
    while True:
        # A part of its own that ends by a number: no planner chooses another way to its rows than the one by the order.
        part = select(*columns).where(*looked).order_by(*ordered(by)).limit(size).subquery()
        query = select(part).where(*wanted(part.c)).order_by(*ordered(part.c[column.name] for column in by)).limit(limit)
        found = connection.execute(query).all()
        if len(found) == limit:
            return found, (found[-1][places[0]], found[-1][places[1]])
        ends = select(*by).where(*looked).order_by(*ordered(by)).offset(size - 1).limit(1)
        end = connection.execute(ends).first()
        if end is None or size >= at_most:
            return found, None if end is None else (end[0], end[1])
        size = min(at_most, size * _GROWTH)
