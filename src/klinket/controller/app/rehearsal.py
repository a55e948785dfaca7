"""What a change would cut: the change itself is made and undone, and the cuts it ordered are laid over the flows that live now.

There is no second rule beside the one that cuts: what a dry run tells is what the use case orders. Flows are those that
connectors have told of, each by the resource it was opened for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from klinket.controller.app import cut_views
from klinket.controller.app.ports import AnnouncedCut, Store, Transaction
from klinket.controller.app.rows import LiveFlowRow
from klinket.domain.cut import CutScope, ScopeKind
from klinket.domain.flow import Destination, TransportProtocol

T = TypeVar("T")

#: Flows that a dry run lists; those beyond are counted only.
MAX_LISTED_FLOWS = 1_000
#: Live flows read at a time.
CHUNK_FLOWS = 5_000


@dataclass(frozen=True, slots=True)
class ForeseenCut:
    """One cut that would be ordered. `words`: its scope with names; `flows`: by connectors that would be told, 0 included."""

    scope: str
    words: str
    reason: str
    flows: dict[str, int]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would end. `flows`: how many, each once; `listed`: the first MAX_LISTED_FLOWS of them."""

    cuts: tuple[ForeseenCut, ...]
    flows: int
    listed: tuple[LiveFlowRow, ...]


NOTHING = Foreseen((), 0, ())


class _Undone(Exception):
    """Raised to leave a savepoint without a trace."""


def rehearse(tx: Transaction, change: Callable[[Transaction], T]) -> tuple[T, tuple[AnnouncedCut, ...]]:
    """Make a change and undo it; returns its result and the cuts it ordered. Raises what it raises.

    The signed cuts must not be given to anybody: they are of revisions that others will have.
    """
    before = len(tx.announced)
    found: list[tuple[T, tuple[AnnouncedCut, ...]]] = []
    try:
        with tx.savepoint():
            result = change(tx)
            found.append((result, tuple(tx.announced[before:])))
            raise _Undone
    except _Undone:
        return found[0]


Reading = Callable[[Callable[[Transaction], Foreseen]], Awaitable[Foreseen]]


async def would_cut(
    store: Store, change: Callable[[Transaction], T], read: Reading | None = None, check: Callable[[], None] = lambda: None
) -> tuple[T, Foreseen]:
    """Return the result of a change that was undone, and what it would have cut. Raises what the change raises.

    `read`: reads the flows, in place of the store's own; `check`: called for each of them, ends it by raising.
    """
    result, ordered = await store.write(lambda tx: rehearse(tx, change))
    if not ordered:
        return result, NOTHING
    # Many flows take their time: the writer has others to serve meanwhile.
    return result, await (read or store.read)(lambda tx: foresee(tx, ordered, check))


def foresee(tx: Transaction, ordered: Sequence[AnnouncedCut], check: Callable[[], None] = lambda: None) -> Foreseen:
    """Return what these cuts would end of the flows that live now. Call it where what they cut is still there."""
    words = cut_views.in_words(tx, {announced.cut.scope for announced in ordered})
    struck: dict[int, LiveFlowRow | None] = {}
    cuts = []
    for announced in ordered:
        cut, per_connector = announced.ordered, Counter[int]()
        check()
        for row in _covered(tx, cut.scope, announced.connectors):
            check()
            if not cut.leaves(_destination(row)):
                per_connector[row.connector_id] += 1
                if row.id not in struck:
                    struck[row.id] = row if len(struck) < MAX_LISTED_FLOWS else None
        names = {row.id: row.name for row in tx.connectors.find(id=set(announced.connectors))} if announced.connectors else {}
        told = {names.get(id, str(id)): per_connector[id] for id in announced.connectors}
        cuts.append(ForeseenCut(announced.cut.scope, words[announced.cut.scope], announced.cut.reason, told))
    return Foreseen(tuple(cuts), len(struck), tuple(row for row in struck.values() if row is not None))


def count(tx: Transaction, change: Callable[[Transaction], object]) -> int:
    """Return how many live flows a change would end. Of a write transaction, for few flows: it is kept while they are read."""
    return foresee(tx, rehearse(tx, change)[1]).flows


def _covered(tx: Transaction, scope: CutScope, connectors: Sequence[int]) -> Iterator[LiveFlowRow]:
    """Yield the live flows in a scope at these connectors, by id."""
    who = _columns(tx, scope)
    if who is None or not connectors:
        return
    last = 0
    while True:
        rows = tx.live_flows.after("id", last, CHUNK_FLOWS, connector_id=set(connectors), **who)
        yield from rows
        if len(rows) < CHUNK_FLOWS:
            return
        last = rows[-1].id


def _columns(tx: Transaction, scope: CutScope) -> dict[str, Any] | None:
    """Return the conditions on live flows that are the scope; None where what it names is not there."""
    columns: dict[str, Any] = {}
    if scope.session is not None:
        columns["session"] = scope.session
    if scope.resource is not None:
        columns["resource_id"] = scope.resource
    if scope.key is not None:
        keys = tx.service_keys.find(kid=scope.key)
        if not keys:
            return None
        columns["service_key_id"] = keys[0].id
    if scope.account is not None:
        accounts = tx.service_accounts.find(uuid=scope.account)
        if not accounts:
            return None
        columns["service_account_id"] = accounts[0].id
    assert columns or scope.kind is ScopeKind.CONNECTOR, "a scope that names nothing is that of a connector, told it alone"
    return columns


def _destination(row: LiveFlowRow) -> Destination:
    connection, host = row.event["connection"], row.event["resource"]["address"]
    return Destination(host, connection["resource_port"], TransportProtocol(connection["protocol"]))
