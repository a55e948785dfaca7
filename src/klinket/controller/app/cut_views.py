"""Cuts as people read them: what was cut, with its names of today, and how far connectors have answered."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klinket.controller.app.cuts import ANSWERED
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import CutReceiptRow, CutRow

#: Cuts whose times make a chart or a percentile.
MAX_TIMED = 100


@dataclass(frozen=True, slots=True)
class Named:
    """An object that a cut is about. `id`: None where it is gone; `kind`: service, key, resource, session, connector."""

    kind: str
    id: int | None
    name: str


@dataclass(frozen=True, slots=True)
class CutView:
    """`words`: the scope as a sentence's beginning. Times in milliseconds; `slowest_ms`: None while nothing has answered."""

    row: CutRow
    words: str
    objects: tuple[Named, ...]
    receipts: Sequence[CutReceiptRow]

    @property
    def answered(self) -> int:
        """Return how many connectors have answered."""
        return sum(receipt.state == ANSWERED for receipt in self.receipts)

    @property
    def is_complete(self) -> bool:
        """Return whether every connector has answered."""
        return self.answered == len(self.receipts)

    @property
    def flows(self) -> int:
        """Return how many flows have ended by it, as far as connectors have told."""
        return sum(len(receipt.flows) for receipt in self.receipts)

    @property
    def slowest_ms(self) -> float | None:
        """Return how long the slowest connector took from the order to the end of the last flow."""
        return max((receipt.took_ms for receipt in self.receipts if receipt.took_ms is not None), default=None)

    @property
    def open_until_ms(self) -> int | None:
        """Return until when something could still flow at a connector that has not answered; None where all have."""
        return max((receipt.grants_end_at_ms for receipt in self.receipts if receipt.state != ANSWERED), default=None)


def views(tx: Transaction, rows: Sequence[CutRow]) -> list[CutView]:
    """Return cuts as people read them, with one statement a table."""
    receipts: dict[int, list[CutReceiptRow]] = {row.id: [] for row in rows}
    for receipt in tx.cut_receipts.find(cut_id=set(receipts)) if rows else ():
        receipts[receipt.cut_id].append(receipt)
    names = _Names(tx, [row.scope.split(" ") for row in rows])
    return [CutView(row, *names.told(row.scope.split(" ")), receipts[row.id]) for row in rows]


def in_words(tx: Transaction, scopes: Collection[str]) -> dict[str, str]:
    """Return scopes in words."""
    parts = [scope.split(" ") for scope in scopes]
    names = _Names(tx, parts)
    return {scope: names.told(part)[0] for scope, part in zip(scopes, parts, strict=True)}


def took(tx: Transaction, begin_ms: int = 0) -> list[tuple[CutRow, float]]:
    """Return the newest answered cuts since a time with how long their slowest connector took, the oldest first."""
    rows = tx.cuts.select("id", MAX_TIMED, least={"created_at_ms": begin_ms}, descending=True)
    slowest: dict[int, float] = {}
    for receipt in tx.cut_receipts.find(cut_id={row.id for row in rows}) if rows else ():
        if receipt.took_ms is not None:
            slowest[receipt.cut_id] = max(receipt.took_ms, slowest.get(receipt.cut_id, 0.0))
    return [(row, slowest[row.id]) for row in reversed(rows) if row.id in slowest]


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the value that `share` (0 to 1) of the values do not exceed; None of no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


class _Names:
    """The names in some scopes: "account UUID", "key KID", "session ID", "resource ID", "access UUID ID", "connector ID"."""

    def __init__(self, tx: Transaction, scopes: Sequence[Sequence[str]]) -> None:
        def named(place: int, *kinds: str) -> set[str]:
            return {parts[place] for parts in scopes if parts[0] in kinds and len(parts) > place}

        def numbers(texts: set[str]) -> set[int]:
            return {int(text) for text in texts if text.isascii() and text.isdigit()}

        kids, sessions = named(1, "key"), named(1, "session")
        self._keys = {row.kid: row for row in tx.service_keys.find(kid=kids)} if kids else {}
        self._sessions = {row.id: row for row in tx.sessions.find(id=sessions)} if sessions else {}
        owners = {key.service_account_id for key in self._keys.values()}
        owners |= {session.service_account_id for session in self._sessions.values()}
        uuids = named(1, "account", "access")
        owned = tx.service_accounts.find(id=owners) if owners else []
        accounts = [*owned, *(tx.service_accounts.find(uuid=uuids) if uuids else ())]
        self._accounts = {row.id: row for row in accounts}
        self._uuids = {row.uuid: row for row in accounts}
        resources = numbers(named(1, "resource") | named(2, "access"))
        self._resources = {str(row.id): row for row in tx.resources.find(id=resources)} if resources else {}
        connectors = numbers(named(1, "connector"))
        self._connectors = {str(row.id): row for row in tx.connectors.find(id=connectors)} if connectors else {}

    def told(self, scope: Sequence[str]) -> tuple[str, tuple[Named, ...]]:
        """Return a scope in words, and the objects it is about."""
        kind, first, second = (*scope, "", "")[:3]
        match kind:
            case "account":
                service = _of("service", self._uuids, first)
                return f"Everything of {service.name}", (service,)
            case "key":
                key = _of("key", self._keys, first)
                row = self._keys.get(first)
                if row is None:
                    return f"Everything reached with {key.name}", (key,)
                service = _of("service", self._accounts, row.service_account_id)
                return f"Everything reached with key {key.name} of {service.name}", (key, service)
            case "session":
                session = self._sessions.get(first)
                if session is None:
                    return "A session", (Named("session", None, first),)
                service = _of("service", self._accounts, session.service_account_id)
                return f"A session of {service.name} on {session.hostname}", (service,)
            case "resource":
                resource = _of("resource", self._resources, first)
                return f"{resource.name}, for everybody", (resource,)
            case "access":
                service, resource = _of("service", self._uuids, first), _of("resource", self._resources, second)
                return f"{resource.name}, for {service.name}", (resource, service)
            case "connector":
                connector = _of("connector", self._connectors, first)
                return f"Everything that {connector.name} carries", (connector,)
        return " ".join(scope), ()


def _of(kind: str, rows: Mapping[Any, Any], key: object) -> Named:
    row = rows.get(key)
    return (
        Named(kind, None, f"a {kind} that was deleted{f' ({key})' if key else ''}")
        if row is None
        else Named(kind, row.id, row.name)
    )


def scope_in_words(tx: Transaction, scope: str) -> str:
    """Return what was cut by its names, as the API says it and receipts are signed with it; `scope` is str(CutScope)."""
    return in_words(tx, (scope,))[scope]
