"""Relays over the API: which there are, whether they are there, and their end for everybody who uses them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from klinket.controller.app import relays
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import AuthenticationFailed
from tests.eventually import eventually
from tests.unit.controller.running import Running
from tests.unit.whole import Whole, everything

RELAYS = "{ relays { totalCount edges { node { id name address certificateSha256 isOnline connectorCount createdAt } } } }"
DELETE = "mutation ($id: ID!) { relayDelete(id: $id) { ok error } }"


async def listed(controller: Running) -> list[dict[str, Any]]:
    answer = await controller.query(RELAYS, extension=True)
    assert answer["relays"]["totalCount"] == len(answer["relays"]["edges"])
    return [edge["node"] for edge in answer["relays"]["edges"]]


async def delete(controller: Running, id: str) -> dict[str, Any]:
    answer = await controller.query(DELETE, extension=True, id=id)
    payload: dict[str, Any] = answer["relayDelete"]
    return payload


async def test_a_relay_that_was_never_started_has_no_address(controller: Running) -> None:
    assert await listed(controller) == []
    await controller.write(lambda tx: relays.create_or_replace(tx, SYSTEM, name="frankfurt-1", entropy=os.urandom))
    (row,) = await listed(controller)
    assert (row["name"], row["address"], row["certificateSha256"]) == ("frankfurt-1", None, None)
    assert (row["isOnline"], row["connectorCount"]) == (False, 0)
    one = await controller.query("query ($id: ID!) { relay(id: $id) { name } }", extension=True, id=row["id"])
    assert one["relay"] == {"name": "frankfurt-1"}
    nobody = await controller.query('{ relay(id: "nonsense") { name } }', extension=True)
    assert nobody["relay"] is None


async def test_a_deleted_relay_is_gone_with_its_token_and_in_the_audit(controller: Running) -> None:
    _, token = await controller.write(lambda tx: relays.create_or_replace(tx, SYSTEM, name="old", entropy=os.urandom))
    (row,) = await listed(controller)
    assert await delete(controller, row["id"]) == {"ok": True, "error": None}
    assert await listed(controller) == []
    with pytest.raises(AuthenticationFailed):
        await controller.read(lambda tx: relays.by_token(tx, token))
    event = await controller.last_event()
    assert (event.action, event.targets[0]["type"], event.targets[0]["name"]) == ("delete", "relay", "old")
    again = await delete(controller, row["id"])
    assert again["ok"] is False
    assert "does not exist" in again["error"]


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with everything(tmp_path) as made:
        yield made


async def test_nobody_uses_a_deleted_relay_any_more(whole: Whole) -> None:
    client = await whole.client()
    flow = await whole.flow(client)
    (row,) = await listed(whole.controller)
    assert (row["isOnline"], row["connectorCount"]) == (True, 1)
    assert row["address"] == f"127.0.0.1:{whole.relay_port}"
    assert (await delete(whole.controller, row["id"]))["ok"]
    await eventually(lambda: not client.core.configuration.relays)
    await eventually(lambda: not whole.controller.peers.relays)
    await eventually(lambda: not client._links)
    await eventually(lambda: not any(whole.controller.peers.online().values()))
    assert await flow.is_reset()
