"""Clients are told over how long to come back should they lose the controller: the more there are, the longer."""

from __future__ import annotations

from typing import Any, cast

import pytest

from klinket.controller.peers import ATTACHES_PER_SECOND, MAX_SPREAD_MS, ClientPeer, Peers
from klinket.wire import control
from tests.unit.controller.running import Running
from tests.unit.controller.test_controller_trusted_peers import office


@pytest.mark.parametrize("clients", [0, 1, 40, 400, 4_000, 8_000, 10_000, 100_000])
def test_the_spread_grows_with_the_clients_up_to_its_limit(clients: int) -> None:
    peers = Peers(clients=dict.fromkeys(map(str, range(clients)), cast("ClientPeer", None)))
    assert peers.spread_ms() == min(MAX_SPREAD_MS, 1000 * clients // ATTACHES_PER_SECOND)
    assert peers.spread_ms() <= 1000 * control.MAX_SPREAD_SECONDS


@pytest.mark.sqlite_only
async def test_a_client_is_told_with_its_configuration(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, session = await office(live)
    monkeypatch.setattr(live.peers, "spread_ms", lambda: 12_345)
    async with live.attached(session) as client:
        told: Any = await client.wait_for(control.ClientConfiguration)
    assert told.spread_ms == 12_345
