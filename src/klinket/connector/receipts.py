"""Receipts a connector has given: a cut that comes again, as the answer got lost, is answered by the same flows."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from klinket.domain.cut import Cut, CutKey
from klinket.wire import control
from klinket.wire.identity import ConnectorIdentity
from klinket.wire.receipt_token import sign_receipt
from klinket.wire.signing import LEEWAY_SECONDS, PrivateKey


class Receipts:
    """`clock`: the controller's time, in seconds since the epoch."""

    def __init__(self, key: PrivateKey, clock: Callable[[], float]) -> None:
        self._key = key
        self._clock = clock
        self._given: dict[CutKey, control.CutReceipt] = {}

    def given(self, cut: Cut, identity: ConnectorIdentity) -> control.CutReceipt | None:
        """Return what this cut was answered by, None if it was not.

        Signed anew if that was while the controller's clock was ahead: it would be taken for one from the future. What it says
        of the moment is the present then, no flow lived longer.
        """
        receipt = self._given.get(cut.key)
        if receipt is not None and receipt.stopped_at_ms / 1000 > self._clock() + LEEWAY_SECONDS:
            return self._sign(cut, identity, receipt.flows, receipt.took_ms / 1000)
        return receipt

    def give(self, cut: Cut, identity: ConnectorIdentity, flows: list[control.CutFlow], received_at: float) -> control.CutReceipt:
        """Return the receipt of a cut that has just ended these flows. `received_at`: of time.monotonic()."""
        return self._sign(cut, identity, flows, time.monotonic() - received_at)

    def keep(self, cuts: Collection[CutKey]) -> None:
        """Forget the receipts of all other cuts."""
        self._given = {key: receipt for key, receipt in self._given.items() if key in cuts}

    def _sign(self, cut: Cut, identity: ConnectorIdentity, flows: list[control.CutFlow], took: float) -> control.CutReceipt:
        stopped_at = self._clock()
        receipt = control.CutReceipt(
            id=cut.id,
            stopped_at_ms=round(stopped_at * 1000),
            took_ms=round(took * 1000, 3),
            flows=flows,
            token=sign_receipt(self._key, identity, cut, flows, stopped_at=stopped_at, took=took),
        )
        self._given[cut.key] = receipt
        return receipt
