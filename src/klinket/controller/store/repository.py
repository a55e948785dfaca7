"""Rows of one table as dataclasses."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Row,
    String,
    Table,
    Text,
    any_,
    cast,
    delete,
    false,
    func,
    insert,
    literal_column,
    or_,
    select,
)
from sqlalchemy.exc import IntegrityError

from klinket.controller.app.ports import Position
from klinket.controller.store import looking, statements
from klinket.controller.store import values as stored
from klinket.controller.store.broken_rules import conflict_of
from klinket.controller.store.lazy_rows import Conditions, LazyRows, Order
from klinket.controller.store.statements import BY, MANY

R = TypeVar("R")


@cache
def _shape(table: Table, row: Callable[..., Any]) -> tuple[tuple[Column[Any], ...], Column[Any]]:
    """Return the columns of a row, and the primary key: a transaction has a repository of each table, most never used."""
    columns = tuple(table.c[field.name] for field in fields(row))  # type: ignore[arg-type]
    return columns, next(iter(table.primary_key.columns))


class SqlRepository(Generic[R]):
    """Implements controller.app.ports.Repository for one table and its row class."""

    def __init__(self, connection: Connection, table: Table, row: Callable[..., R], now_ms: Callable[[], int]) -> None:
        self._connection = connection
        self._table = table
        self._row = row
        self._columns, self._key = _shape(table, row)
        # Texts are ordered by code points in SQLite, and by the server's language in PostgreSQL, unless it is told.
        by_text = connection.dialect.name == "postgresql" and isinstance(self._key.type, String)
        self._collation = "C" if by_text else None
        self._now_ms = now_ms

    @property
    def _by_key(self) -> ColumnElement[Any]:
        return self._key if self._collation is None else self._key.collate(self._collation)

    def get(self, id: Any) -> R | None:
        """Return the row with this primary key, or None."""
        if not stored.can_hold(self._key, id):
            return None
        query = statements.getting(self._columns, self._key)
        found = self._connection.execute(query, {BY + self._key.name: id}).first()
        return None if found is None else self._made(found)

    def find(self, **equal: Any) -> list[R]:
        """Return the rows that meet all conditions, by primary key."""
        return [self._made(found) for found in self._found(self._columns, equal)]

    def _found(self, columns: tuple[Column[Any], ...], equal: dict[str, Any]) -> Iterable[Row[Any]]:
        known = statements.shape_of(self._table, equal)
        if known is None:
            return self._connection.execute(select(*columns).where(*self._conditions(equal)).order_by(self._by_key))
        shape, bound = known
        return self._connection.execute(statements.finding(self._table, columns, shape, self._collation), bound)

    def all(self) -> Sequence[R]:
        """Return all rows by primary key, read when they are asked for."""
        return LazyRows(self.number_of, self.part, [], [self._by_key])

    def matching(
        self,
        text: str,
        columns: Sequence[str],
        *,
        order: str = "id",
        descending: bool = False,
        least: Mapping[str, int] | None = None,
        below: Mapping[str, int] | None = None,
        beyond: Mapping[str, int] | None = None,
        holding: Mapping[str, str] | None = None,
        **equal: Any,
    ) -> Sequence[R]:
        """Return the rows with `text` in one of the columns, ordered by a column, read when they are asked for."""
        conditions = [*self._conditions(equal), *self._bounds(least, below)]
        conditions += [or_(self._table.c[name] > bound, self._table.c[name].is_(None)) for name, bound in (beyond or {}).items()]
        if text:
            conditions.append(or_(*(self._table.c[name].icontains(text, autoescape=True) for name in columns)))
        place = func.strpos if self._connection.dialect.name == "postgresql" else func.instr
        for name, part in (holding or {}).items():
            conditions.append(place(cast(self._table.c[name], Text), part) > 0)
        by = self._table.c[order]
        first: ColumnElement[Any] = func.lower(by) if isinstance(by.type, String) else by
        ordered: Order = [first.desc(), self._by_key.desc()] if descending else [first, self._by_key]
        if by.nullable:
            ordered[0] = ordered[0].nulls_last()
        return LazyRows(self.number_of, self.part, conditions, ordered)

    def pick(self, columns: Sequence[str], **equal: Any) -> list[tuple[Any, ...]]:
        """Return some columns of the rows that meet all conditions, by primary key."""
        return [tuple(found) for found in self._found(tuple(self._table.c[name] for name in columns), equal)]

    def totals(
        self,
        by: Sequence[str],
        of: str | None = None,
        *,
        limit: int | None = None,
        least: Mapping[str, int] | None = None,
        below: Mapping[str, int] | None = None,
        **equal: Any,
    ) -> list[tuple[Any, ...]]:
        """Return (values of `by`..., sum of column `of`, or the number of rows) of the rows in question, the highest first."""
        taken = {name: self._table.c[name] for name in (*by, *([] if of is None else [of]))}
        wanted = select(*(taken.values() or [self._by_key])).where(*self._conditions(equal), *self._bounds(least, below))
        # First what the bounds leave, then its groups: SQLite would walk a whole table in the order of its groups.
        rows = wanted.cte("wanted").prefix_with("MATERIALIZED")
        groups = [rows.c[name] for name in by]
        total = func.count() if of is None else cast(func.sum(rows.c[of]), BigInteger)
        query = select(*groups, total).select_from(rows).group_by(*groups).order_by(total.desc(), *groups).limit(limit)
        return [tuple(found) for found in self._connection.execute(query)]

    def count(self, **equal: Any) -> int:
        """Return how many rows meet all conditions."""
        return self.number_of(self._conditions(equal))

    def lowest(self, column: str, **equal: Any) -> int | None:
        """Return the lowest value of `column` in the rows that meet all conditions; None where there is none."""
        known = statements.shape_of(self._table, equal)
        if known is None:
            by = self._table.c[column]
            query = select(by).where(by.is_not(None), *self._conditions(equal)).order_by(by).limit(1)
            found = self._connection.execute(query).first()
        else:
            found = self._connection.execute(statements.lowest(self._table, column, known[0]), known[1]).first()
        return None if found is None else int(found[0])

    def part(self, conditions: Conditions, order: Order, start: int, size: int | None) -> list[R]:
        """Return `size` (None: all) of the rows that meet the conditions, from number `start` on."""
        query = select(*self._columns).where(*conditions).order_by(*order).offset(start).limit(size)
        return [self._made(found) for found in self._connection.execute(query)]

    def number_of(self, conditions: Conditions) -> int:
        """Return how many rows meet the conditions."""
        query = select(func.count()).select_from(self._table).where(*conditions)
        return int(self._connection.execute(query).scalar_one())

    def counts(
        self, each: str, *, least: Mapping[str, int] | None = None, below: Mapping[str, int] | None = None, **equal: Any
    ) -> dict[Any, int]:
        """Return how many rows meet all conditions, by the values of column `each`."""
        return {value: int(count) for value, count in self.totals([each], least=least, below=below, **equal)}

    def highest(self, column: str, each: str, **equal: Any) -> dict[Any, int]:
        """Return the highest value of `column` in the rows that meet all conditions, by the values of column `each`."""
        by, wanted = self._table.c[each], self._table.c[column]
        conditions = (*self._conditions(equal), wanted.is_not(None))
        found = self._connection.execute(select(by, func.max(wanted)).where(*conditions).group_by(by))
        return {value: int(most) for value, most in found}

    def sums(
        self, column: str, each: str, along: str, step: int, *, least: Mapping[str, int] | None = None, **equal: Any
    ) -> dict[tuple[Any, int], int]:
        """Return the sums of `column` in the rows that meet all conditions, by the values of `each` and steps of `along`."""
        by, steps = self._table.c[each], self._table.c[along].op("/")(literal_column(str(int(step)))).label("step")
        conditions = (*self._conditions(equal), *self._bounds(least, None))
        query = select(by, steps, func.sum(self._table.c[column])).where(*conditions).group_by(by, steps)
        return {(value, int(number)): int(total) for value, number, total in self._connection.execute(query)}

    def newest(self, limit: int, order: str = "id", **equal: Any) -> list[R]:
        """Return up to `limit` rows that meet all conditions, the one with the highest `order` column first."""
        by = (self._table.c[order].desc().nulls_last(), self._by_key.desc())
        query = select(*self._columns).where(*self._conditions(equal)).order_by(*by).limit(limit)
        return [self._made(found) for found in self._connection.execute(query)]

    def since(self, column: str, least: int) -> list[R]:
        """Return the rows whose `column` is at least `least`, by primary key; those without a value are none of them."""
        query = select(*self._columns).where(self._table.c[column] >= least).order_by(self._by_key)
        return [self._made(found) for found in self._connection.execute(query)]

    def after(self, column: str, bound: int, limit: int, **equal: Any) -> list[R]:
        """Return up to `limit` rows that meet all conditions and whose `column` is above `bound`, ordered by it."""
        above = self._table.c[column] > bound
        query = select(*self._columns).where(above, *self._conditions(equal)).order_by(self._table.c[column]).limit(limit)
        return [self._made(found) for found in self._connection.execute(query)]

    def until(self, column: str, bound: int, limit: int, **equal: Any) -> list[R]:
        """Return up to `limit` rows that meet all conditions and whose `column` is at most `bound`, ordered by it."""
        by = self._table.c[column]
        query = select(*self._columns).where(by <= bound, *self._conditions(equal)).order_by(by, self._by_key).limit(limit)
        return [self._made(found) for found in self._connection.execute(query)]

    def select(
        self,
        order: str,
        limit: int,
        *,
        least: Mapping[str, int] | None = None,
        below: Mapping[str, int] | None = None,
        descending: bool = False,
        **equal: Any,
    ) -> list[R]:
        """Return up to `limit` rows that meet all conditions, ordered by one column and then by primary key."""
        by = [self._table.c[order], self._by_key]
        conditions = [*self._conditions(equal), *self._bounds(least, below)]
        columns = [column.desc() for column in by] if descending else by
        query = select(*self._columns).where(*conditions).order_by(*columns).limit(limit)
        return [self._made(found) for found in self._connection.execute(query)]

    def look_through(
        self,
        order: str,
        limit: int,
        *,
        at_most: int,
        narrowed: Mapping[str, Any] | None = None,
        before: Position | None = None,
        after: Position | None = None,
        least: Mapping[str, int] | None = None,
        below: Mapping[str, int] | None = None,
        containing: Mapping[str, Sequence[str]] | None = None,
        **equal: Any,
    ) -> tuple[list[R], Position | None]:
        """Return up to `limit` rows that meet all conditions, looking at no more than `at_most`, and where that ended."""

        def wanted(columns: Any) -> list[ColumnElement[bool]]:
            texts = [(name, text) for name, given in (containing or {}).items() for text in given]
            return [*self._conditions(equal, columns), *(looking.contains(columns[name], text) for name, text in texts)]

        rows, end = looking.look_through(
            self._connection,
            self._columns,
            (self._table.c[order], self._key),
            [*self._conditions(dict(narrowed or {})), *self._bounds(least, below)],
            wanted,
            limit=limit,
            at_most=at_most,
            before=before,
            after=after,
        )
        return [self._made(row) for row in rows], end

    def search(self, columns: Sequence[str], text: str, limit: int) -> list[R]:
        """Return up to `limit` rows with `text` in one of the columns, those that begin with it first."""
        names = [self._table.c[name] for name in columns]
        matching = or_(*(looking.contains(name, text) for name in names))
        by = (looking.beginning_first(names, text), self._by_key)
        query = select(*self._columns).where(matching).order_by(*by).limit(limit)
        return [self._made(found) for found in self._connection.execute(query)]

    def add_all(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows that have all their values, with one statement for all of them; raises Conflict."""
        if not rows:
            return
        for name in rows[0]:
            column = self._table.c[name]
            if not stored.holds_anything(column):
                for value in {values[name] for values in rows}:  # many rows have the same few values
                    stored.check(column, value)
        try:
            self._connection.execute(insert(self._table), [dict(values) for values in rows])
        except IntegrityError as error:
            raise conflict_of(error) from error

    def add(self, **values: Any) -> R:
        """Insert a row and return it; raises Conflict."""
        for name in ("created_at_ms", "updated_at_ms"):
            if name in self._table.c and name not in values:
                values[name] = self._now_ms()
        self._check(values)
        try:
            added = self._connection.execute(statements.adding(self._table, self._columns), values).one()
        except IntegrityError as error:
            raise conflict_of(error) from error
        return self._made(added)

    def change(self, id: Any, **values: Any) -> R:
        """Change a row and return it; raises Conflict."""
        if "updated_at_ms" in self._table.c:
            values.setdefault("updated_at_ms", self._now_ms())
        self._check(values)
        try:
            query = statements.changing(self._table, self._columns, self._key)
            changed = self._connection.execute(query, {BY + self._key.name: id, **values}).one()
        except IntegrityError as error:
            raise conflict_of(error) from error
        return self._made(changed)

    def remove(self, **equal: Any) -> int:
        """Delete the rows that meet all conditions; returns how many. Raises Conflict."""
        known = statements.shape_of(self._table, equal)
        try:
            if known is None:
                return self._connection.execute(delete(self._table).where(*self._conditions(equal))).rowcount
            return self._connection.execute(statements.removing(self._table, known[0]), known[1]).rowcount
        except IntegrityError as error:
            raise conflict_of(error) from error

    def remove_below(self, column: str, bound: int) -> int:
        """Delete the rows whose `column` is below `bound`; returns how many."""
        return self._connection.execute(delete(self._table).where(self._table.c[column] < bound)).rowcount

    def _check(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            stored.check(self._table.c[name], value)

    def _made(self, found: Row[Any]) -> R:
        return self._row(*found)

    def _conditions(self, equal: dict[str, Any], columns: Any = None) -> Conditions:
        """Return conditions; `columns`: of a part of the table, else its own."""
        conditions: Conditions = []
        for name, value in equal.items():
            column = (self._table.c if columns is None else columns)[name]
            if isinstance(value, Collection) and not isinstance(value, str | bytes):
                conditions.append(self._one_of(column, [one for one in value if stored.can_hold(column, one)]))
            elif value is None:
                conditions.append(column.is_(None))
            else:
                conditions.append(column == value if stored.can_hold(column, value) else false())
        return conditions

    def _bounds(self, least: Mapping[str, int] | None, below: Mapping[str, int] | None) -> Conditions:
        return [
            *(self._table.c[name] >= bound for name, bound in (least or {}).items()),
            *(self._table.c[name] < bound for name, bound in (below or {}).items()),
        ]

    def _one_of(self, column: Column[Any], values: list[Any]) -> ColumnElement[bool]:
        if len(values) <= MANY:
            return column.in_(values)
        if self._connection.dialect.name == "postgresql":
            return column == any_(cast(values, ARRAY(column.type)))
        return column.in_(select(func.json_each(json.dumps(values)).table_valued("value").c.value))
