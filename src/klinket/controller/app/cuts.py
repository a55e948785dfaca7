"""Ordering cuts, and keeping the receipts that answer them (DESIGN §3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from klinket.controller.app.audit import TARGET_VERSION, actor_detail
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ConnectorRow, CutRow
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.cut import Cut, CutScope, ScopeKind, Stamp
from klinket.domain.errors import NotFound, ProtocolError
from klinket.domain.flow import PROTOCOLS, FlowFailure
from klinket.domain.identifiers import CutId
from klinket.domain.resource import Resource
from klinket.wire.control import CutReceipt
from klinket.wire.grant_token import MAX_LIFETIME_SECONDS
from klinket.wire.receipt_token import digest
from klinket.wire.signing import LEEWAY_SECONDS

PENDING, ANSWERED = "pending", "answered"
#: Cuts shown in a list.
LISTED_CUTS = 100
#: Receipts that the audit event of a complete cut tells; it counts them all.
MAX_AUDITED_RECEIPTS = 100
#: Cuts that a connector is told again when it attaches, the newest.
MAX_IN_FORCE = 10_000
#: Of what a receipt tells: the last moment that can be written (year 9999), milliseconds that anything took, ids.
_LAST_MS, _LONGEST_MS, _MAX_ID = 253_402_300_799_999, 10**10, (1 << 53) - 1


def order(
    tx: Transaction,
    scope: CutScope,
    reason: FlowFailure,
    actor: Actor,
    *,
    remote_networks: Iterable[int] | None = None,
    connectors: Iterable[ConnectorRow] | None = None,
    narrowed: Resource | None = None,
) -> CutRow:
    """End access in `scope` for every grant made so far; concerns these connectors, else those of the networks (None: all).

    The cut is signed and stored with one pending receipt per connector; it goes out when the transaction has committed.
    """
    epoch, revision = tx.bump()
    # The row comes first: its id is part of what is signed.
    row = tx.cuts.add(epoch=epoch, revision=revision, scope=str(scope), reason=reason.value, token="", actor=actor_detail(actor))
    cut = Cut(CutId(row.id), scope, epoch, revision, reason, tx.now_ms / 1000, narrowed)
    row = tx.cuts.change(row.id, token=tx.sign_cut(cut))
    if connectors is not None:
        concerned = list(connectors)
    else:
        concerned = tx.connectors.find(**({} if remote_networks is None else {"remote_network_id": set(remote_networks)}))
    for connector in concerned:
        tx.cut_receipts.add(
            cut_id=row.id,
            connector_id=connector.id,
            connector_name=connector.name,
            state=PENDING,
            grants_end_at_ms=tx.now_ms + round((tx.grant_seconds + LEEWAY_SECONDS) * 1000),
            flows=[],
        )
    tx.record(
        AuditEvent(
            AuditAction.CUT,
            actor,
            (_target(row),),
            {"reason": reason.value, "revision": revision},
        )
    )
    tx.announce_cut(row, cut, [connector.id for connector in concerned])
    return row


def check_told(receipt: CutReceipt, took_ms: float) -> None:
    """Raise ProtocolError for a receipt that nobody could be shown: its connector may be in strange hands. `took_ms`: as signed.

    What it says is signed as it is, so nothing of it can be put right.
    """
    texts = [text for one in receipt.flows for text in (one.flow, one.session, one.service_account, one.key)]
    if not all(len(text) <= 64 and text.isprintable() for text in texts):
        raise ProtocolError("a receipt with a name that is too long, or cannot be shown")
    for one in receipt.flows:
        if len(one.host) > 253 or not one.host.isprintable() or one.protocol not in PROTOCOLS:
            raise ProtocolError("a receipt with a destination that is none")
        if not (0 <= one.port <= 65_535 and 0 < one.resource <= _MAX_ID and 0 <= one.stopped_after_ms <= _LONGEST_MS):
            raise ProtocolError("a receipt with a number out of its range")
    if not (0 <= receipt.stopped_at_ms <= _LAST_MS and 0 <= took_ms <= _LONGEST_MS):
        raise ProtocolError("a receipt with a time out of its range")


def answer(
    tx: Transaction,
    cut_id: int,
    connector_id: int,
    *,
    stopped_at_ms: int,
    took_ms: float,
    flows: list[dict[str, Any]],
    token: str | None = None,
    stamp: Stamp | None = None,
) -> None:
    """Store a connector's receipt; the first answer counts, answers to unknown cuts are dropped.

    `token`: its signed form; `stamp`: of the cut as the connector saw it, since ids come again when a backup is restored.
    """
    cut = tx.cuts.get(cut_id)
    if cut is None or (stamp is not None and stamp != (cut.epoch, cut.revision)):
        return
    for receipt in tx.cut_receipts.find(cut_id=cut_id, connector_id=connector_id, state=PENDING):
        answer = {"stopped_at_ms": stopped_at_ms, "took_ms": round(took_ms, 3), "flows": flows, "token": token}
        tx.cut_receipts.change(receipt.id, state=ANSWERED, **answer)
        if not tx.cut_receipts.count(cut_id=cut_id, state=PENDING):
            _record_complete(tx, cut)


def _record_complete(tx: Transaction, cut: CutRow) -> None:
    """Write into the audit how a cut went, when the last connector has answered."""
    receipts = tx.cut_receipts.find(cut_id=cut.id)
    told = [
        {
            "connector": receipt.connector_name,
            "tookMs": receipt.took_ms,
            "stoppedAtMs": receipt.stopped_at_ms,
            "flows": len(receipt.flows),
            "flowsSha256": digest(receipt.flows),
        }
        for receipt in receipts[:MAX_AUDITED_RECEIPTS]
    ]
    detail = {"state": ANSWERED, "connectors": len(receipts), "flows": sum(len(one.flows) for one in receipts), "receipts": told}
    tx.record(AuditEvent(AuditAction.CUT, SYSTEM, (_target(cut),), detail))


def _target(row: CutRow) -> dict[str, str]:
    return {"version": TARGET_VERSION, "type": "cut", "id": str(row.id), "name": row.scope}


def in_force(tx: Transaction) -> list[CutRow]:
    """Return the cuts that a grant still alive could be older than, the newest MAX_IN_FORCE; not those of one connector alone."""
    oldest = tx.now_ms - 1000 * (MAX_LIFETIME_SECONDS + round(LEEWAY_SECONDS))
    found = tx.cuts.since("created_at_ms", oldest)[-MAX_IN_FORCE:]
    return [cut for cut in found if cut.scope.partition(" ")[0] != ScopeKind.CONNECTOR.value]


def receipt(tx: Transaction, cut_id: int) -> dict[str, Any]:
    """Return one cut with its receipts as JSON-ready values; raises NotFound."""
    row = tx.cuts.get(cut_id)
    if row is None:
        raise NotFound("Cut", cut_id)
    return _shown(tx, row)


def receipts(tx: Transaction) -> list[dict[str, Any]]:
    """Return the newest LISTED_CUTS cuts with their receipts."""
    return [_shown(tx, row) for row in tx.cuts.newest(LISTED_CUTS)]


def _shown(tx: Transaction, row: CutRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "created_at_ms": row.created_at_ms,
        "scope": row.scope,
        "reason": row.reason,
        "epoch": row.epoch,
        "revision": row.revision,
        "actor": row.actor,
        "receipts": [
            {
                "connector": receipt.connector_name,
                "state": receipt.state,
                "took_ms": receipt.took_ms,
                "stopped_at_ms": receipt.stopped_at_ms,
                # Until it answers, this is the latest moment at which something could still flow there.
                "grants_end_at_ms": receipt.grants_end_at_ms if receipt.state == PENDING else None,
                "flows": receipt.flows,
                # The connector's signature under the lines above: its identity key, digest of the flows.
                "token": receipt.token,
            }
            for receipt in tx.cut_receipts.find(cut_id=row.id)
        ],
    }
