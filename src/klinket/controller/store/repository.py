"""Rows of one table as dataclasses."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar, overload

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Row,
    String,
    Table,
    any_,
    cast,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from klinket.controller.app.ports import Position
from klinket.controller.store import looking
from klinket.controller.store import values as stored
from klinket.domain.errors import Conflict

R = TypeVar("R")
_Conditions = list[ColumnElement[bool]]

#: Values of a condition above which they travel as one list: databases bound how many a statement may have.
MANY = 500

#: What people are told when a rule of the schema is broken, by words in the database's text.
_RULES = {
    "remote_networks.name": "a remote network with this name exists already",
    "uq_remote_networks_name": "a remote network with this name exists already",
    "connectors.name": "a connector with this name exists already",
    "uq_connectors_name": "a connector with this name exists already",
    "service_accounts.name": "a service account with this name exists already",
    "uq_service_accounts_name": "a service account with this name exists already",
    "resources.alias": "another resource has this alias",
    "uq_resources_alias": "another resource has this alias",
    "groups.name": "a group with this name exists already",
    "uq_groups_name": "a group with this name exists already",
    "users.email": "a user with this email address exists already",
    "uq_users_email": "a user with this email address exists already",
    "security_policies.name": "a security policy with this name exists already",
    "uq_security_policies_name": "a security policy with this name exists already",
    "api_tokens.name": "an API token with this name exists already",
    "uq_api_tokens_name": "an API token with this name exists already",
    "sinks.name": "a sink with this name exists already",
    "uq_sinks_name": "a sink with this name exists already",
    "FOREIGN KEY": "something that others depend on cannot be deleted, and nothing can depend on what does not exist",
    "foreign key": "something that others depend on cannot be deleted, and nothing can depend on what does not exist",
}


class SqlRepository(Generic[R]):
    """Implements controller.app.ports.Repository for one table and its row class."""

    def __init__(self, connection: Connection, table: Table, row: Callable[..., R], now_ms: Callable[[], int]) -> None:
        self._connection = connection
        self._table = table
        self._row = row
        self._names = [field.name for field in fields(row)]  # type: ignore[arg-type]
        self._columns = [table.c[name] for name in self._names]
        self._key = next(iter(table.primary_key.columns))
        # Texts are ordered by code points in SQLite, and by the server's language in PostgreSQL, unless it is told.
        by_text = connection.dialect.name == "postgresql" and isinstance(self._key.type, String)
        self._by_key: ColumnElement[Any] = self._key.collate("C") if by_text else self._key
        self._now_ms = now_ms

    def get(self, id: Any) -> R | None:
        """Return the row with this primary key, or None."""
        if not stored.can_hold(self._key, id):
            return None
        found = self._connection.execute(select(*self._columns).where(self._key == id)).first()
        return None if found is None else self._made(found)

    def find(self, **equal: Any) -> list[R]:
        """Return the rows that meet all conditions, by primary key."""
        query = select(*self._columns).where(*self._conditions(equal)).order_by(self._by_key)
        return [self._made(found) for found in self._connection.execute(query)]

    def all(self) -> Sequence[R]:
        """Return all rows by primary key, read when they are asked for."""
        return _AllRows(self)

    def count(self, **equal: Any) -> int:
        """Return how many rows meet all conditions."""
        query = select(func.count()).select_from(self._table).where(*self._conditions(equal))
        return int(self._connection.execute(query).scalar_one())

    def lowest(self, column: str, **equal: Any) -> int | None:
        """Return the lowest value of `column` in the rows that meet all conditions; None where there is none."""
        by = self._table.c[column]
        query = select(by).where(by.is_not(None), *self._conditions(equal)).order_by(by).limit(1)
        found = self._connection.execute(query).first()
        return None if found is None else int(found[0])

    def part(self, start: int, size: int) -> list[R]:
        """Return `size` rows by primary key, from number `start` on."""
        query = select(*self._columns).order_by(self._by_key).offset(start).limit(size)
        return [self._made(found) for found in self._connection.execute(query)]

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
        for values in rows:
            self._check(values)
        try:
            self._connection.execute(insert(self._table), [dict(values) for values in rows])
        except IntegrityError as error:
            raise _conflict(error) from error

    def add(self, **values: Any) -> R:
        """Insert a row and return it; raises Conflict."""
        for name in ("created_at_ms", "updated_at_ms"):
            if name in self._table.c and name not in values:
                values[name] = self._now_ms()
        self._check(values)
        try:
            result = self._connection.execute(insert(self._table).values(**values))
        except IntegrityError as error:
            raise _conflict(error) from error
        key = result.inserted_primary_key
        assert key is not None
        added = self.get(key[0])
        assert added is not None
        return added

    def change(self, id: Any, **values: Any) -> R:
        """Change a row and return it; raises Conflict."""
        if "updated_at_ms" in self._table.c:
            values.setdefault("updated_at_ms", self._now_ms())
        self._check(values)
        try:
            self._connection.execute(update(self._table).where(self._key == id).values(**values))
        except IntegrityError as error:
            raise _conflict(error) from error
        changed = self.get(id)
        assert changed is not None
        return changed

    def remove(self, **equal: Any) -> int:
        """Delete the rows that meet all conditions; returns how many. Raises Conflict."""
        try:
            return self._connection.execute(delete(self._table).where(*self._conditions(equal))).rowcount
        except IntegrityError as error:
            raise _conflict(error) from error

    def remove_below(self, column: str, bound: int) -> int:
        """Delete the rows whose `column` is below `bound`; returns how many."""
        return self._connection.execute(delete(self._table).where(self._table.c[column] < bound)).rowcount

    def _check(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            stored.check(self._table.c[name], value)

    def _made(self, found: Row[Any]) -> R:
        return self._row(*found)

    def _conditions(self, equal: dict[str, Any], columns: Any = None) -> _Conditions:
        """Return conditions; `columns`: of a part of the table, else its own."""
        conditions: _Conditions = []
        for name, value in equal.items():
            column = (self._table.c if columns is None else columns)[name]
            if isinstance(value, Collection) and not isinstance(value, str | bytes):
                conditions.append(self._one_of(column, [one for one in value if stored.can_hold(column, one)]))
            elif value is None:
                conditions.append(column.is_(None))
            else:
                conditions.append(column == value if stored.can_hold(column, value) else false())
        return conditions

    def _bounds(self, least: Mapping[str, int] | None, below: Mapping[str, int] | None) -> _Conditions:
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


class _AllRows(Sequence[R]):
    """A table as a sequence; counted once."""

    def __init__(self, repository: SqlRepository[R]) -> None:
        self._repository = repository
        self._count: int | None = None

    def __len__(self) -> int:
        if self._count is None:
            self._count = self._repository.count()
        return self._count

    @overload
    def __getitem__(self, index: int) -> R: ...

    @overload
    def __getitem__(self, index: slice) -> list[R]: ...

    def __getitem__(self, index: int | slice) -> R | list[R]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._repository.part(start, max(0, stop - start))[::step]
        return self._repository.part(range(len(self))[index], 1)[0]

    def __iter__(self) -> Iterator[R]:
        return iter(self._repository.find())


def _conflict(error: IntegrityError) -> Conflict:
    text = str(error.orig)
    return Conflict(next((told for words, told in _RULES.items() if words in text), "the change breaks a rule of the store"))
