"""Searching everything an admin may look for, by name, address or id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from klinket.controller.app.ports import Repository, Transaction

#: Results of one kind, where all kinds are asked for, and where one is.
FEW, MANY = 6, 100
#: Characters of what is looked for.
MAX_TEXT = 100


@dataclass(frozen=True, slots=True)
class Found:
    """`about`: what tells it from others of its name; `owner`: id of the service a key is of; `mark`: its state, in a word."""

    kind: str
    id: int
    name: str
    about: str = ""
    owner: int | None = None
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """The results of one kind; `more`: whether there are others."""

    kind: str
    label: str
    found: list[Found]
    more: bool


@dataclass(frozen=True, slots=True)
class _Kind:
    """`columns`: where the text may be; `made`: results of rows."""

    label: str
    table: Callable[[Transaction], Repository[Any]]
    columns: tuple[str, ...]
    made: Callable[[Transaction, Sequence[Any]], list[Found]]


def _services(_: Transaction, rows: Sequence[Any]) -> list[Found]:
    return [Found("service", row.id, row.name) for row in rows]


def _keys(tx: Transaction, rows: Sequence[Any]) -> list[Found]:
    owners = {row.id: row.name for row in tx.service_accounts.find(id={row.service_account_id for row in rows})}
    return [
        Found(
            "key",
            row.id,
            row.name,
            f"of {owners[row.service_account_id]} · {row.kid}",
            row.service_account_id,
            "" if (state := row.state(tx.now_ms).value.lower()) == "active" else state,
        )
        for row in rows
    ]


def _resources(_: Transaction, rows: Sequence[Any]) -> list[Found]:
    def about(row: Any) -> str:
        return " · ".join(filter(None, (row.address, row.alias)))

    return [Found("resource", row.id, row.name, about(row), mark="" if row.is_active else "disabled") for row in rows]


def _connectors(_: Transaction, rows: Sequence[Any]) -> list[Found]:
    return [Found("connector", row.id, row.name, row.hostname or "") for row in rows]


def _networks(_: Transaction, rows: Sequence[Any]) -> list[Found]:
    return [Found("network", row.id, row.name, mark="" if row.is_active else "disabled") for row in rows]


def _users(_: Transaction, rows: Sequence[Any]) -> list[Found]:
    def name(row: Any) -> str:
        return " ".join(part for part in (row.first_name, row.last_name) if part) or str(row.email)

    return [Found("user", row.id, name(row), row.email, mark="" if row.state == "ACTIVE" else row.state.lower()) for row in rows]


def _groups(_: Transaction, rows: Sequence[Any]) -> list[Found]:
    return [Found("group", row.id, row.name) for row in rows]


def _relays(_: Transaction, rows: Sequence[Any]) -> list[Found]:
    return [Found("relay", row.id, row.name, row.address or "") for row in rows]


def _tokens(_: Transaction, rows: Sequence[Any]) -> list[Found]:
    return [Found("token", row.id, row.name) for row in rows]


_KINDS: dict[str, _Kind] = {
    "service": _Kind("Services", lambda tx: tx.service_accounts, ("name", "uuid"), _services),
    "resource": _Kind("Resources", lambda tx: tx.resources, ("name", "address", "alias"), _resources),
    "key": _Kind("Service keys", lambda tx: tx.service_keys, ("name", "kid"), _keys),
    "connector": _Kind("Connectors", lambda tx: tx.connectors, ("name", "hostname"), _connectors),
    "network": _Kind("Remote networks", lambda tx: tx.remote_networks, ("name",), _networks),
    "user": _Kind("Users", lambda tx: tx.users, ("email", "first_name", "last_name"), _users),
    "group": _Kind("Groups", lambda tx: tx.groups, ("name",), _groups),
    "relay": _Kind("Relays", lambda tx: tx.relays, ("name", "address"), _relays),
    "token": _Kind("API tokens", lambda tx: tx.api_tokens, ("name",), _tokens),
}
#: What can be searched.
KINDS = tuple(_KINDS)


def search(tx: Transaction, text: str, kinds: Sequence[str] = KINDS) -> list[Group]:
    """Return what holds `text`, in any case, by kind; more of each where only one kind is asked for."""
    text = " ".join(text.split())[:MAX_TEXT]
    if not text:
        return []
    size = MANY if len(kinds) == 1 else FEW
    found = []
    for name in kinds:
        kind = _KINDS[name]
        rows = kind.table(tx).search(kind.columns, text, size + 1)
        if rows:
            found.append(Group(name, kind.label, kind.made(tx, rows[:size]), len(rows) > size))
    return found


def one(tx: Transaction, kind: str, id: int) -> list[Group]:
    """Return the object with an id, as a search that found just it."""
    row = _KINDS[kind].table(tx).get(id)
    return [] if row is None else [Group(kind, _KINDS[kind].label, _KINDS[kind].made(tx, [row]), more=False)]
