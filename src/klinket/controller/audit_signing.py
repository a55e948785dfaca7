"""Signs the audit as it grows: while the controller runs, and before each export."""

from __future__ import annotations

from klinket.controller.app import audit_log
from klinket.controller.app.ports import Store
from klinket.controller.trust import KeyPurpose, Trust
from klinket.wire.audit_signature import sign_block


async def sign_waiting(store: Store, trust: Trust, *, now: bool = False) -> None:
    """Sign what waits for it, one block a transaction; `now`: also the events that could wait for others."""
    key = trust.signers[KeyPurpose.AUDIT]
    network = trust.network
    head = await store.read(lambda tx: tx.audit_head.get(1))
    for _ in range((head.number if head else 0) // audit_log.SIGN_EVENTS + 1):  # what comes in meanwhile waits its turn
        if not await store.write(lambda tx: audit_log.sign_next(tx, network, lambda block: sign_block(key, block), now=now)):
            return
