"""Whether the controller is usable, and what its metrics say of the store: asked when somebody looks."""

from __future__ import annotations

from dataclasses import dataclass

from klinket.controller.app.cuts import PENDING
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.store_errors import StoreUnavailable
from klinket.controller.metrics import Metrics
from klinket.domain.readiness import Readiness, Unready, readiness


@dataclass(frozen=True, slots=True)
class _Stored:
    """`is_behind`: a connector has proved that this database has forgotten something."""

    is_behind: bool
    connectors: int
    receipts: int


class Observed:
    """The controller as who watches it sees it."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    async def ready(self) -> Readiness:
        """Return whether the store answers and has forgotten nothing; takes over the metrics that come from it."""
        try:
            found = await self._store.read(_stored)
        except StoreUnavailable as error:
            return Readiness((Unready(error.code, error.message),))
        self._metrics.set_stored(found.connectors, found.receipts)
        return readiness(
            (not found.is_behind, "controller-behind", "connectors have seen a later state of this database: a restored backup?"),
        )


def _stored(tx: Transaction) -> _Stored:
    proven = tx.proven_head()
    return _Stored(
        is_behind=proven is not None and proven > tx.head(),
        connectors=sum(row.last_heartbeat_ms is not None for row in tx.connectors.find()),
        receipts=sum(receipt.grants_end_at_ms > tx.now_ms for receipt in tx.cut_receipts.find(state=PENDING)),
    )
