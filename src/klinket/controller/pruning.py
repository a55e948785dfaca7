"""Prunes the audit, cuts and receipts while the controller runs, a step a transaction; never by a clock that has just moved."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from klinket.controller.app import retention
from klinket.controller.app.ports import Store
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.audit_verification import AuditNotIntact
from klinket.wire.audit_signature import sign_anchor, verify_anchor, verify_block

logger = logging.getLogger(__name__)

#: Seconds for which the clock must have gone on evenly: one that is wrong after a start is often put right soon.
STEADY_SECONDS = 3_600.0
#: Steps in one round.
MAX_STEPS = 100


class Pruning:
    """`round` is called again and again; it does nothing while an export is read, whose events must stay to its end."""

    def __init__(
        self,
        store: Store,
        trust: Trust,
        days: int,
        is_exporting: Callable[[], bool],
        steady_seconds: Callable[[], float],
    ) -> None:
        """`steady_seconds`: says for how long the clock has gone on evenly, as ClockWatch does."""
        self._store = store
        self._days = days
        self._is_exporting = is_exporting
        self._steady_seconds = steady_seconds
        self._told: object = None
        signer, known = trust.signers[KeyPurpose.AUDIT], trust.keys[KeyPurpose.AUDIT]
        self._keys = retention.AuditKeys(
            trust.network,
            lambda token: verify_block(token, known),
            lambda token: verify_anchor(token, known),
            lambda anchor: sign_anchor(signer, anchor),
        )

    async def round(self) -> None:
        """Remove what is due, as far as one round goes; raises StoreUnavailable."""
        if self._steady_seconds() < STEADY_SECONDS or self._is_exporting():
            return
        days = self._days
        try:
            for _ in range(MAX_STEPS):
                if not await self._store.read(lambda tx: retention.is_due(tx, days)) or self._is_exporting():
                    break
                if not await self._store.write(lambda tx: retention.prune(tx, days, self._keys)):
                    break
                await asyncio.sleep(0)
        except AuditNotIntact as error:
            self._tell(error.message, "the audit is not pruned, since it is not intact: %s")
            return
        held_by = await self._store.read(lambda tx: retention.held_by(tx, days))
        self._tell(", ".join(held_by), "audit events older than they are kept wait for sinks that have not got them: %s")

    def _tell(self, what: str, text: str) -> None:
        """Log what is new."""
        if what and what != self._told:
            logger.warning(text, what)
        self._told = what
