"""What a filter names: by its id, as links do, or by its name, as people do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from klinket.controller.app.ports import Transaction

#: Names offered while typing, or when several fit.
MAX_OFFERED = 12
#: Characters of a name that is looked for.
MAX_TEXT = 100

_TABLES: dict[str, Callable[[Transaction], Any]] = {
    "service": lambda tx: tx.service_accounts,
    "key": lambda tx: tx.service_keys,
    "resource": lambda tx: tx.resources,
    "connector": lambda tx: tx.connectors,
}
#: What can be picked.
KINDS = tuple(_TABLES)


@dataclass(frozen=True, slots=True)
class Picked:
    """`id`: the one that was named; None: none, or not clear which. `offered`: ids, names and what tells them apart."""

    text: str
    id: int | None = None
    name: str = ""
    offered: tuple[tuple[int, str, str], ...] = ()

    @property
    def is_open(self) -> bool:
        """Return whether something was named that is not (one) object."""
        return bool(self.text) and self.id is None

    @property
    def shown(self) -> str:
        """Return what the field shows: the name."""
        return self.name or self.text


def pick(tx: Transaction, kind: str, text: str) -> Picked:
    """Return what `text` means: an id, also of something that was deleted, a whole name, or a part that only one has."""
    text = text[:MAX_TEXT]
    if not text:
        return Picked("")
    table = _TABLES[kind](tx)
    if text.isascii() and text.isdigit() and len(text) < 10:
        row = table.get(int(text))
        return Picked(text, int(text), row.name if row is not None else "")
    rows = table.find(name=text) or table.search(_columns(kind), text, MAX_OFFERED)
    if len(rows) == 1:
        return Picked(text, rows[0].id, rows[0].name)
    details = _details(tx, kind, rows)
    return Picked(text, offered=tuple((row.id, row.name, detail) for row, detail in zip(rows, details, strict=True)))


def names(tx: Transaction, kind: str, text: str) -> list[str]:
    """Return names that hold a text, for a field that completes what is typed."""
    rows = _TABLES[kind](tx).search(("name",), text[:MAX_TEXT], MAX_OFFERED) if text else []
    return list(dict.fromkeys(row.name for row in rows))


def _columns(kind: str) -> tuple[str, ...]:
    return ("name", "address", "alias") if kind == "resource" else ("name",)


def _details(tx: Transaction, kind: str, rows: list[Any]) -> list[str]:
    if kind == "resource":
        return [row.address for row in rows]
    if kind == "key":
        accounts = {row.id: row.name for row in tx.service_accounts.find(id={row.service_account_id for row in rows})}
        return [f"of {accounts.get(row.service_account_id, '')}" for row in rows]
    return ["" for _ in rows]
