"""The controller as who watches it sees it: ready means that the store answers and has forgotten nothing."""

from __future__ import annotations

import pytest

from klinket.controller.app.store_errors import StoreUnreachable
from tests.unit.controller.running import Running


async def test_a_controller_is_live_and_ready_to_anybody(controller: Running) -> None:
    assert (await controller.get("/live")).json() == {"status": "live"}
    answer = await controller.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_a_store_that_does_not_answer_is_the_reason_and_it_lives_on(
    controller: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(_: object) -> None:
        raise StoreUnreachable("the database is away")

    monkeypatch.setattr(controller.store, "read", read)
    answer = await controller.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == [{"code": "store-unreachable", "text": "the database is away"}]
    assert (await controller.get("/live")).status_code == 200
    assert "klinket_ready 0.0" in (await controller.get("/metrics", source="127.0.0.1")).text


async def test_a_database_that_has_forgotten_something_is_not_ready(controller: Running) -> None:
    epoch, revision = await controller.read(lambda tx: tx.head())
    await controller.write(lambda tx: tx.prove_head((epoch, revision + 1)))
    answer = await controller.get("/ready")
    assert answer.status_code == 503
    assert [one["code"] for one in answer.json()["reasons"]] == ["controller-behind"]


async def test_connectors_that_were_ever_attached_and_answers_still_waited_for_are_counted(live: Running) -> None:
    office = await live.add_network()
    never, once = await live.add_connector(office, "never"), await live.add_connector(office, "once")
    number = (await live.read(lambda tx: [row.id for row in tx.connectors.find() if row.name == "once"]))[0]
    await live.write(lambda tx: tx.connectors.change(number, last_heartbeat_ms=tx.now_ms))

    async def told(name: str) -> str:
        text = (await live.get("/metrics", source="127.0.0.1")).text
        return next(line for line in text.splitlines() if line.startswith(name + " ")).rpartition(" ")[2]

    assert never != once
    assert (await told("klinket_connectors"), await told("klinket_cut_receipts_pending")) == ("1.0", "0.0")
    granted = await live.add_resource(office, "db", "db.internal")
    key, _ = await live.add_key(await live.add_account("ci", [granted]))
    await live.revoke_key(key)
    waiting = await live.read(lambda tx: len(tx.cut_receipts.find()))
    assert waiting > 0
    assert float(await told("klinket_cut_receipts_pending")) == waiting
    live.offset += 4000
    assert await told("klinket_cut_receipts_pending") == "0.0"
