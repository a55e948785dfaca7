"""Statements that are asked again and again, made once for each shape: making one costs more than running it.

Values are bound by name when a statement runs; those of conditions begin with BY, which no column does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Delete,
    Insert,
    Select,
    Table,
    Update,
    bindparam,
    delete,
    false,
    insert,
    select,
    update,
)

from klinket.controller.store import values as stored

#: Values of a condition above which they travel as one list: databases bound how many a statement may have.
MANY = 500
#: Shapes that are kept: a few for each table.
KEPT_SHAPES = 2_000
BY = "by_"

Columns = tuple[Column[Any], ...]
#: Of each condition the column's name, and how it compares.
Shape = tuple[tuple[str, str], ...]


def shape_of(table: Table, equal: Mapping[str, Any]) -> tuple[Shape, dict[str, Any]] | None:
    """Return the shape of conditions and the values that they compare with; None where a list is longer than MANY."""
    shape, bound = [], {}
    for name, value in equal.items():
        column = table.c[name]
        if isinstance(value, Collection) and not isinstance(value, str | bytes):
            listed = [one for one in value if stored.can_hold(column, one)]
            if len(listed) > MANY:
                return None
            shape.append((name, "in"))
            bound[BY + name] = listed
        elif value is None:
            shape.append((name, "null"))
        elif stored.can_hold(column, value):
            shape.append((name, "is"))
            bound[BY + name] = value
        else:
            shape.append((name, "never"))
    return tuple(shape), bound


def _condition(column: Column[Any], kind: str) -> ColumnElement[bool]:
    if kind == "in":
        return column.in_(bindparam(BY + column.name, type_=column.type, expanding=True))
    if kind == "null":
        return column.is_(None)
    return column == bindparam(BY + column.name, type_=column.type) if kind == "is" else false()


def _conditions(table: Table, shape: Shape) -> list[ColumnElement[bool]]:
    return [_condition(table.c[name], kind) for name, kind in shape]


@lru_cache(KEPT_SHAPES)
def finding(table: Table, columns: Columns, shape: Shape, collation: str | None) -> Select[Any]:
    """Return the statement that reads columns of the rows of this shape, by primary key in the order of a collation."""
    key: ColumnElement[Any] = next(iter(table.primary_key.columns))
    return select(*columns).where(*_conditions(table, shape)).order_by(key if collation is None else key.collate(collation))


@lru_cache(KEPT_SHAPES)
def getting(columns: Columns, key: Column[Any]) -> Select[Any]:
    """Return the statement that reads columns of the row with one key."""
    return select(*columns).where(_condition(key, "is"))


@lru_cache(KEPT_SHAPES)
def lowest(table: Table, column: str, shape: Shape) -> Select[Any]:
    """Return the statement that reads the lowest value of a column in the rows of this shape."""
    by = table.c[column]
    return select(by).where(by.is_not(None), *_conditions(table, shape)).order_by(by).limit(1)


@lru_cache(KEPT_SHAPES)
def adding(table: Table, columns: Columns) -> Insert:
    """Return the statement that inserts a row, and says what it has become."""
    return insert(table).returning(*columns)


@lru_cache(KEPT_SHAPES)
def changing(table: Table, columns: Columns, key: Column[Any]) -> Update:
    """Return the statement that changes the row with one key, and says what it has become."""
    return update(table).where(_condition(key, "is")).returning(*columns)


@lru_cache(KEPT_SHAPES)
def removing(table: Table, shape: Shape) -> Delete:
    """Return the statement that deletes the rows of this shape."""
    return delete(table).where(*_conditions(table, shape))
