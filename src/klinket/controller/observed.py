"""Whether the controller is usable, and what its metrics say of the store: asked when somebody looks."""

from __future__ import annotations

from dataclasses import dataclass

from klinket.controller.app.cuts import PENDING
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.store_errors import StoreUnavailable
from klinket.controller.metrics import Metrics
from klinket.domain.readiness import Readiness, Unready, readiness

#: Receipts that are counted at the most.
MAX_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class _Stored:
    """`connectors`: that have ever been attached; `receipts`: still waited for while something could flow."""

    connectors: int
    receipts: int


class Observed:
    """The controller as who watches it sees it."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    async def ready(self) -> Readiness:
        """Return whether the store answers and has forgotten nothing. Anybody may ask: it is one row that is read."""
        try:
            is_behind = await self._store.read(_is_behind)
        except StoreUnavailable as error:
            return Readiness((Unready(error.code, error.message),))
        return readiness(
            (not is_behind, "controller-behind", "connectors have seen a later state of this database: a restored backup?"),
        )

    async def measured(self) -> Readiness:
        """Return the same, and take over the metrics that come from the store: for who may read metrics."""
        ready = await self.ready()
        try:
            found = await self._store.read(_stored)
        except StoreUnavailable:
            return ready  # the figures stay what they were
        self._metrics.set_stored(found.connectors, found.receipts)
        return ready


def _is_behind(tx: Transaction) -> bool:
    proven = tx.proven_head()
    return proven is not None and proven > tx.head()


def _stored(tx: Transaction) -> _Stored:
    return _Stored(
        connectors=tx.connectors.count() - tx.connectors.count(last_heartbeat_ms=None),
        receipts=len(tx.cut_receipts.after("grants_end_at_ms", tx.now_ms, MAX_COUNTED, state=PENDING)),
    )
