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
