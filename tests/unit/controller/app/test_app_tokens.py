"""Text secrets of connectors, relays and the Admin API: shown once, stored as hashes, dead when replaced."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from klinket.controller.app import api_tokens, connectors, relays
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ConnectorRow
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import AuthenticationFailed, Conflict, ConnectorTokensDead
from tests.unit.controller.running import everything_stored

if TYPE_CHECKING:
    from tests.unit.controller.app.conftest import Inventory


async def test_an_api_token_is_found_by_its_text_only(inventory: Inventory) -> None:
    row, text = await inventory.write(
        lambda tx: api_tokens.create(tx, SYSTEM, name="ops", scopes=api_tokens.ALL_SCOPES, entropy=os.urandom)
    )
    assert await inventory.read(lambda tx: api_tokens.by_text(tx, text)) == row
    assert text not in repr(row)
    for wrong in ("", "kl_api_", text[:-1], text[:-1] + ("0" if text[-1] != "0" else "1"), row.token_hash):
        with pytest.raises(AuthenticationFailed) as refused:
            await inventory.read(lambda tx, wrong=wrong: api_tokens.by_text(tx, wrong))
        assert wrong == "" or wrong not in str(refused.value)


async def test_new_connector_tokens_kill_the_pair_before_and_what_it_enrolled(inventory: Inventory) -> None:
    row = inventory.connector

    def issue(tx: Transaction) -> tuple[str, str]:
        return connectors.issue_tokens(tx, SYSTEM, row, os.urandom)

    first = await inventory.write(issue)
    await inventory.write(lambda tx: connectors.enrol(tx, connectors.by_tokens(tx, *first), "jkt-1", "192.0.2.1"))
    await inventory.write(lambda tx: connectors.enrol(tx, connectors.by_tokens(tx, *first), "jkt-1", "192.0.2.1"))
    with pytest.raises(Conflict, match="enrolled another key"):
        await inventory.write(lambda tx: connectors.enrol(tx, connectors.by_tokens(tx, *first), "jkt-2", "192.0.2.1"))
    second = await inventory.write(issue)
    for pair in (first, (first[0], second[1]), (second[0], first[1]), ("", "")):
        with pytest.raises(ConnectorTokensDead):
            await inventory.read(lambda tx, pair=pair: connectors.by_tokens(tx, *pair))
    found = await inventory.read(lambda tx: connectors.by_tokens(tx, *second))
    assert (found.id, found.enrolled_jkt) == (row.id, None)


@pytest.mark.parametrize(
    ("time_ms", "started_ms", "kept"),
    [(-7_000, -60_000, (-7_000, -60_000)), (1 << 62, 1 << 62, (10**15, 0)), (None, None, (None, None))],
    ids=["as told", "beyond all bounds", "not told"],
)
async def test_a_heartbeat_tells_of_clock_and_start(
    inventory: Inventory, time_ms: int | None, started_ms: int | None, kept: tuple[int | None, int | None]
) -> None:
    now = round(inventory.now * 1000)
    report = {"version": "1.80.0", "hostname": "h", "public_ip": "192.0.2.1", "private_ips": []}
    told = {} if time_ms is None or started_ms is None else {"time_ms": now + time_ms, "started_ms": now + started_ms}

    def beat(tx: Transaction) -> None:
        tx.connectors.change(inventory.connector.id, enrolled_jkt="jkt")
        connectors.heartbeat(tx, inventory.connector.id, "jkt", **report, **told)  # type: ignore[arg-type]

    await inventory.write(beat)
    row = await inventory.read(lambda tx: tx.connectors.get(inventory.connector.id))
    assert row is not None
    assert (row.clock_offset_ms, row.started_ms) == (kept[0], None if kept[1] is None else now + kept[1])


async def test_a_heartbeat_is_no_change_of_the_inventory(inventory: Inventory) -> None:
    await inventory.write(lambda tx: tx.connectors.change(inventory.connector.id, enrolled_jkt="jkt"))
    before = await inventory.read(lambda tx: (tx.head(), len(tx.audit.find())))
    report = {"version": "1.80.0", "hostname": "h" * 300, "public_ip": "192.0.2.1", "private_ips": ["10.0.0.1"] * 99}
    inventory.now += 60
    assert await inventory.write(lambda tx: connectors.heartbeat(tx, inventory.connector.id, "jkt", **report)) == before[0]
    for connector, jkt in ((999, "jkt"), (inventory.connector.id, "of former tokens"), (inventory.connector.id, "")):
        with pytest.raises(ConnectorTokensDead):
            await inventory.write(lambda tx, one=connector, jkt=jkt: connectors.heartbeat(tx, one, jkt, **report))
    assert await inventory.read(lambda tx: (tx.head(), len(tx.audit.find()))) == before
    row = await inventory.read(lambda tx: tx.connectors.get(inventory.connector.id))
    assert row is not None
    assert (row.version, row.updated_at_ms) == ("1.80.0", inventory.connector.updated_at_ms)
    assert connectors.state(row, round(inventory.now * 1000)) == "ALIVE"
    assert connectors.state(row, round(inventory.now * 1000) + 60_000) == "DEAD_HEARTBEAT_TOO_OLD"
    assert connectors.state(inventory.connector, 0) == "DEAD_NO_HEARTBEAT"


async def test_a_connector_that_said_that_it_ends_is_dead_at_once_and_alive_with_its_next_word(inventory: Inventory) -> None:
    report = {"version": "1.80.0", "hostname": "h", "public_ip": "192.0.2.1", "private_ips": []}

    async def state(leaves: bool) -> str:
        def beat(tx: Transaction) -> ConnectorRow | None:
            tx.connectors.change(inventory.connector.id, enrolled_jkt="jkt")
            connectors.heartbeat(tx, inventory.connector.id, "jkt", **report, leaves=leaves)  # type: ignore[arg-type]
            return tx.connectors.get(inventory.connector.id)

        row = await inventory.write(beat)
        assert row is not None
        return connectors.state(row, round(inventory.now * 1000))

    assert [await state(leaves) for leaves in (False, True, False)] == ["ALIVE", "DEAD_NO_HEARTBEAT", "ALIVE"]


async def test_made_up_connector_names_never_clash(inventory: Inventory) -> None:
    def make(tx: Transaction) -> str:
        name = connectors.made_up_name(tx, os.urandom)
        return inventory.add_connector(tx, name).name

    made = [await inventory.write(make) for _ in range(300)]
    assert len(set(made)) == 300
    assert all("-" in name for name in made)


async def test_a_relay_token_is_replaced_not_added(inventory: Inventory) -> None:
    def create(tx: Transaction) -> tuple[int, str]:
        row, text = relays.create_or_replace(tx, SYSTEM, name="beside", entropy=os.urandom)
        return row.id, text

    (first, old), (second, new) = await inventory.write(create), await inventory.write(create)
    assert first == second
    assert (await inventory.read(lambda tx: relays.by_token(tx, new))).id == first
    with pytest.raises(AuthenticationFailed):
        await inventory.read(lambda tx: relays.by_token(tx, old))


async def test_no_token_rests_in_the_database(inventory: Inventory) -> None:
    def make(tx: Transaction) -> list[str]:
        api = api_tokens.create(tx, SYSTEM, name="ops", scopes=["read"], entropy=os.urandom)[1]
        relay = relays.create_or_replace(tx, SYSTEM, name="beside", entropy=os.urandom)[1]
        return [api, relay, *connectors.issue_tokens(tx, SYSTEM, inventory.connector, os.urandom)]

    texts = await inventory.write(make)
    content = everything_stored(inventory.database_at)
    assert b"beside" in content
    for text in texts:
        assert text.encode() not in content
