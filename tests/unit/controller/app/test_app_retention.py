"""Retention: what is older than it is kept goes in bounded steps, provably, and never before it was signed and delivered."""

from __future__ import annotations

from typing import Any

import pytest

from klinket.controller.app import audit_check, audit_log, cuts, retention
from klinket.controller.app.audit_check import Checked
from klinket.controller.app.ports import Transaction
from klinket.controller.app.retention import DAY_MS, MIN_DAYS, AuditKeys
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.audit_verification import AuditNotIntact, FindingKind
from klinket.domain.cut import CutScope
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ResourceId
from klinket.domain.sink import Stream
from klinket.wire import signing
from klinket.wire.audit_signature import sign_anchor, sign_block, verify_anchor, verify_block
from tests.unit.controller.app.conftest import Inventory

NETWORK = "acme"
KEY = signing.SigningKey.generate("audit-1")
KNOWN = signing.KeySet({KEY.kid: KEY.public_key})
KEYS = AuditKeys(
    NETWORK,
    lambda token: verify_block(token, KNOWN),
    lambda token: verify_anchor(token, KNOWN),
    lambda anchor: sign_anchor(KEY, anchor),
)
DAY = DAY_MS / 1000


async def record(inventory: Inventory, count: int) -> None:
    """Write events and have them signed."""

    def write(tx: Transaction) -> None:
        for number in range(count):
            tx.record(AuditEvent(AuditAction.EDIT, SYSTEM, ({"type": "group", "id": str(number), "name": "ops"},)))

    await inventory.write(write)
    await sign(inventory)


async def sign(inventory: Inventory) -> None:
    while await inventory.write(lambda tx: audit_log.sign_next(tx, NETWORK, lambda block: sign_block(KEY, block), now=True)):
        pass


async def prune(inventory: Inventory, days: int = MIN_DAYS) -> int:
    """Prune as the controller does; returns how many steps it took."""
    steps = 0
    while await inventory.read(lambda tx: retention.is_due(tx, days)):
        if not await inventory.write(lambda tx: retention.prune(tx, days, KEYS)):
            break
        steps += 1
    return steps


async def numbers(inventory: Inventory) -> list[int]:
    rows = await inventory.read(lambda tx: tx.audit.find())
    return sorted(row.number for row in rows)


async def checked(inventory: Inventory) -> Checked:
    """Verify all of it, part by part."""
    found = Checked(0, 1, 1)
    while not found.is_done:
        after = found.until
        found = await inventory.read(
            lambda tx: audit_check.part(tx, NETWORK, KEYS.open_block, after, KEYS.open_anchor)  # noqa: B023
        )
    return found


async def add_sink(inventory: Inventory, name: str, position: int, *streams: str) -> None:
    given: dict[str, Any] = {"settings": {}, "sealed_secret": None, "is_enabled": True, "flow_position": 0, "attempts": 0}
    await inventory.write(
        lambda tx: tx.sinks.add(name=name, kind="WEBHOOK", streams=list(streams), audit_position=position, **given)
    )


async def test_events_that_are_old_go_and_a_signed_anchor_stays(inventory: Inventory) -> None:
    await record(inventory, 230)
    last = (await numbers(inventory))[-1]
    inventory.now += (MIN_DAYS + 2) * DAY
    await record(inventory, 5)
    assert await prune(inventory) == 1
    left = await numbers(inventory)
    assert left == list(range(last + 1, last + 7))
    anchor = await inventory.read(lambda tx: tx.audit_anchor.get(1))
    assert anchor is not None
    signed = verify_anchor(anchor.token, KNOWN)
    assert (signed.number, signed.digest, signed.network) == (last, anchor.digest, NETWORK)
    row = (await inventory.read(lambda tx: tx.audit.find(number=left[-1])))[0]
    assert (row.action, row.actor["type"], row.detail["first"], row.detail["last"]) == ("prune", "System", 1, last)
    assert row.detail["digest"] == anchor.digest
    await sign(inventory)
    found = await checked(inventory)
    assert (found.wrong, found.pruned, found.until) == (None, last, left[-1])
    assert await inventory.read(lambda tx: tx.audit_signatures.select("number", 9, below={"number": last + 1})) == []


async def test_what_is_not_old_stays(inventory: Inventory) -> None:
    await record(inventory, 20)
    inventory.now += (MIN_DAYS + 0.9) * DAY
    assert await prune(inventory) == 0
    inventory.now += 0.2 * DAY
    assert await prune(inventory) == 1


async def test_a_step_removes_a_bounded_number_and_the_next_goes_on(inventory: Inventory) -> None:
    await record(inventory, 3 * audit_check.PART_EVENTS)
    inventory.now += (MIN_DAYS + 2) * DAY
    assert await prune(inventory) == 4
    await sign(inventory)
    assert (await checked(inventory)).wrong is None
    assert len(await numbers(inventory)) == 4  # one of each step


async def test_an_audit_of_which_nothing_is_signed_any_more_goes_on_where_it_was(inventory: Inventory) -> None:
    await record(inventory, 20)
    for _ in range(5):
        inventory.now += (MIN_DAYS + 2) * DAY
        assert await prune(inventory) == 1
        await sign(inventory)
        assert (await checked(inventory)).wrong is None
        assert len(await numbers(inventory)) == 1
    assert await inventory.read(lambda tx: audit_log.range_of(tx, NETWORK, None, None).first) == (await numbers(inventory))[0]


async def test_what_is_not_signed_stays(inventory: Inventory) -> None:
    before = await numbers(inventory)
    inventory.now += (MIN_DAYS + 2) * DAY
    assert not await inventory.write(lambda tx: retention.prune(tx, MIN_DAYS, KEYS))
    assert await numbers(inventory) == before


async def test_what_a_sink_has_not_got_stays_until_it_has(inventory: Inventory) -> None:
    await record(inventory, 250)
    await add_sink(inventory, "siem", 120, Stream.AUDIT.value)
    await add_sink(inventory, "flows only", 0, Stream.NETWORK.value)
    inventory.now += (MIN_DAYS + 2) * DAY
    assert await prune(inventory) == 1
    assert (await numbers(inventory))[0] == 101  # whole signatures only
    assert await inventory.read(lambda tx: retention.held_by(tx, MIN_DAYS)) == ["siem"]
    (sink,) = await inventory.read(lambda tx: tx.sinks.find(name="siem"))
    assert await prune(inventory) == 0
    await inventory.write(lambda tx: tx.sinks.change(sink.id, audit_position=10_000))
    assert await prune(inventory) == 1


@pytest.mark.parametrize("tamper", ["time", "content", "gone"])
async def test_what_is_not_as_it_was_signed_stays_and_shows(inventory: Inventory, tamper: str) -> None:
    await record(inventory, 120)

    def change(tx: Transaction) -> None:
        (row,) = tx.audit.find(number=7)
        if tamper == "gone":
            tx.audit.remove(number=7)
        else:
            tx.audit.change(row.id, **({"time_ms": 1} if tamper == "time" else {"action": "login"}))

    await inventory.write(change)
    inventory.now += (MIN_DAYS + 2) * DAY
    before = await numbers(inventory)
    with pytest.raises(AuditNotIntact) as raised:
        await inventory.write(lambda tx: retention.prune(tx, MIN_DAYS, KEYS))
    assert raised.value.number == 7
    assert await numbers(inventory) == before


async def test_times_made_older_by_hand_remove_nothing(inventory: Inventory) -> None:
    await record(inventory, 120)

    def older(tx: Transaction) -> None:
        for row in tx.audit.find():
            tx.audit.change(row.id, time_ms=row.time_ms - 400 * DAY_MS)

    await inventory.write(older)
    before = await numbers(inventory)
    with pytest.raises(AuditNotIntact):
        await prune(inventory)
    assert await numbers(inventory) == before


@pytest.mark.parametrize("forged", ["number", "token"])
async def test_an_audit_that_begins_where_no_anchor_says_is_not_intact(inventory: Inventory, forged: str) -> None:
    await record(inventory, 320)
    inventory.now += (MIN_DAYS + 2) * DAY
    await prune(inventory)
    await record(inventory, 120)
    first = (await numbers(inventory))[0]

    def cut_off(tx: Transaction) -> None:
        digest = audit_log.digest_at(tx, first + 9)
        tx.audit.remove_below("number", first + 10)
        changed = {"number": first + 9, "digest": digest} if forged == "number" else {"token": "x.y.z"}
        tx.audit_anchor.change(1, **changed)

    await inventory.write(cut_off)
    wrong = (await checked(inventory)).wrong
    assert wrong is not None
    assert wrong.kind in (FindingKind.UNPROVEN, FindingKind.MISSING)


async def test_a_range_of_time_does_not_hide_that_its_first_events_are_gone(inventory: Inventory) -> None:
    await record(inventory, 50)
    begin = round((inventory.now + DAY) * 1000)
    inventory.now += 2 * DAY
    await record(inventory, 50)
    first = await inventory.read(lambda tx: audit_log.range_of(tx, NETWORK, begin, None).first)
    await inventory.write(lambda tx: tx.audit.remove(number=[first, first + 1]))
    assert await inventory.read(lambda tx: audit_log.range_of(tx, NETWORK, begin, None).first) == first


async def test_cuts_go_with_their_receipts_answered_or_not(inventory: Inventory) -> None:
    def order(tx: Transaction) -> None:
        for _ in range(retention.STEP_CUTS + 5):
            cuts.order(tx, CutScope.of_resource(ResourceId(inventory.database.id)), FlowFailure.NOT_GRANTED, SYSTEM)

    await inventory.write(order)
    await sign(inventory)
    inventory.now += (MIN_DAYS + 2) * DAY
    await inventory.write(order)
    fresh = retention.STEP_CUTS + 5
    assert await prune(inventory) == 2
    assert await inventory.read(lambda tx: (tx.cuts.count(), tx.cut_receipts.count())) == (fresh, fresh)
    last = await inventory.read(lambda tx: tx.audit.newest(2))
    assert [row.detail["cuts"] for row in last] == [5, retention.STEP_CUTS]


async def test_the_state_says_what_was_removed(inventory: Inventory) -> None:
    await record(inventory, 20)
    count = len(await numbers(inventory))
    state = await inventory.read(lambda tx: retention.state(tx, 90))
    nothing = {"pruned": 0, "digest": None, "until_ms": None, "pruned_at_ms": None, "held_by": []}
    assert state == {"days": 90, "events": count, **nothing}
    then = round(inventory.now * 1000)
    inventory.now += 92 * DAY
    await prune(inventory, 90)
    state = await inventory.read(lambda tx: retention.state(tx, 90))
    assert (state["events"], state["pruned"], state["until_ms"]) == (1, count, then)
    assert state["pruned_at_ms"] == round(inventory.now * 1000)
