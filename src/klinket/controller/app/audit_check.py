"""Verifying the audit in the store part by part: the same rules as for an export (domain.audit_verification)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from klinket.controller.app import audit_log
from klinket.controller.app.ports import Transaction
from klinket.domain.audit_chain import SignedAnchor, SignedBlock, SignedRange
from klinket.domain.audit_verification import AuditNotIntact, Record, RecordKind, refuse_anchors, verify

#: Events, and signatures, of one part.
PART_EVENTS = 500
PART_SIGNATURES = 100


@dataclass(frozen=True, slots=True)
class Checked:
    """How far the audit was verified: all events up to number `until` of `last` that are signed; `newest`: the last there is.

    `wrong`: the first that is not as the controller signed it. `pruned`: the last that retention removed, by a signed anchor.
    """

    until: int
    last: int
    newest: int
    wrong: AuditNotIntact | None = None
    pruned: int = 0

    @property
    def is_done(self) -> bool:
        """Return whether everything signed was verified, or something wrong was found."""
        return self.wrong is not None or self.until >= self.last

    @property
    def unsigned(self) -> int:
        """Return how many events wait for their signature."""
        return max(0, self.newest - self.last)


def part(
    tx: Transaction,
    network: str,
    open_block: Callable[[str], SignedBlock],
    after: int,
    open_anchor: Callable[[str], SignedAnchor] = refuse_anchors,
) -> Checked:
    """Verify the events after number `after`, which was verified before, up to a signature.

    `open_...` verify the token of a signature, of the anchor, and raise InvalidToken.
    """
    head, last, pruned = tx.audit_head.get(1), audit_log.signed(tx), audit_log.pruned(tx)
    newest = head.number if head is not None else 0
    anchors = []
    if pruned and after <= pruned:
        after = pruned
        token = audit_log.anchor_of(tx, pruned + 1)
        anchors = [Record(0, RecordKind.ANCHOR, token=token)] if token is not None else []
    elif after >= last:
        return Checked(max(0, min(after, last)), last, newest, pruned=pruned)
    least = {"number": after + 1}
    signatures = tx.audit_signatures.select("number", PART_SIGNATURES, least=least, below={"number": after + PART_EVENTS + 1})
    signatures = signatures or tx.audit_signatures.select("number", 1, least=least)
    end = signatures[-1].number if signatures else after
    rows = tx.audit.select("number", end - after, least=least, below={"number": end + 1})
    # A part may begin anywhere, as a range of time does; the first one has to begin where the audit does.
    begin_ms = None if not after or anchors else 0
    before, digest = audit_log.digest_at(tx, after), audit_log.digest_at(tx, end)
    whole = SignedRange(network, after + 1, end, before, digest, begin_ms, None, tx.now_ms // 1000)

    def records() -> Iterator[Record]:
        yield from anchors
        for line, (row, previous) in enumerate(audit_log.with_previous(tx, rows), 1):
            yield Record(line, RecordKind.EVENT, audit_log.exported_event(row, previous))
        for signature in signatures:
            yield Record(0, RecordKind.SIGNATURE, token=signature.token)
        yield Record(0, RecordKind.TRAILER)

    try:
        verify(records(), open_block, lambda _: whole, open_anchor)
    except AuditNotIntact as error:
        return Checked(min(max(after, error.number - 1), end), last, newest, error, pruned)
    return Checked(end, last, newest, pruned=pruned)
