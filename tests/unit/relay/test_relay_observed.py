"""A relay as who watches it sees it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest

from klinket.domain.readiness import Readiness
from klinket.net.clock import PeerClock
from klinket.net.exposition import Exposition
from klinket.net.sockets import HostPort
from klinket.net.splice import KernelPipes, Pair, received_bytes
from klinket.relay import serve
from klinket.relay.core import RelayCore
from klinket.relay.forwarding import DatagramForwarding
from klinket.relay.limits import RelayLimits
from klinket.relay.observed import Observed
from klinket.relay.traffic import RelayTraffic
from klinket.wire.relay import RelayAnswer
from tests.unit.net.conftest import tcp_pair
from tests.unit.net.test_net_metrics_endpoint import ask, get
from tests.unit.relay.test_relay_serve import config_in


def observed(traffic: RelayTraffic | None = None) -> Observed:
    core = RelayCore(RelayLimits(), os.urandom)
    forwarding = DatagramForwarding(core, RelayLimits(), os.urandom, time.time, time.monotonic)
    return Observed(core, PeerClock(), traffic or RelayTraffic(), lambda: 1, lambda: [(10, 1)], forwarding)


async def test_a_relay_is_ready_when_it_is_attached_and_configured() -> None:
    watched = observed()
    assert [one.code for one in (await watched.ready()).reasons] == ["not-attached", "no-configuration"]
    watched.attachment(True)
    watched.core.configure(1, "acme", {"keys": []})
    assert (await watched.ready()).is_ready
    watched.core.draining = True
    assert [one.code for one in (await watched.ready()).reasons] == ["draining"]


def test_bytes_of_live_pairs_and_of_ended_ones_are_one_sum() -> None:
    traffic = RelayTraffic()
    traffic.pair_ended((100, 7))
    traffic.refused[RelayAnswer.NO_CONNECTOR] += 2
    text = Exposition("relay", observed(traffic).metrics).text(Readiness())[1].decode()
    assert 'klinket_relay_received_bytes_total{from="clients"} 110.0' in text
    assert 'klinket_relay_received_bytes_total{from="connectors"} 8.0' in text
    assert 'klinket_relay_refused_total{reason="no-connector"} 2.0' in text


async def test_a_pair_knows_what_it_has_received_also_when_it_is_over() -> None:
    near, client = tcp_pair()
    connector, far = tcp_pair()
    ended = asyncio.Event()
    pair = Pair(client, connector, KernelPipes(), lambda _: ended.set())
    pair.start()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(near, b"x" * 5000)
    got = 0
    while got < 5000:
        got += len(await loop.sock_recv(far, 5000))
    await loop.sock_sendall(far, b"y" * 30)
    await loop.sock_recv(near, 100)
    assert pair.received() == (5000, 30)
    pair.reset()
    await asyncio.wait_for(ended.wait(), 10)
    assert pair.received() == (5000, 30)
    near.close()
    far.close()


def test_what_is_no_tcp_has_received_nothing() -> None:
    one, two = socket.socketpair()
    two.send(b"abc")
    assert received_bytes(one) == 0
    one.close()
    assert received_bytes(one) == 0
    two.close()


async def test_a_relay_without_its_controller_is_live_and_not_ready(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    stop = asyncio.Event()
    running = asyncio.create_task(serve.run(config_in(tmp_path, metrics=HostPort("127.0.0.1", 0)), stop))  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        while "metrics are served at http://" not in caplog.text:
            await asyncio.sleep(0.01)
    where = HostPort.parse(caplog.text.split("metrics are served at http://")[1].split("/")[0])
    assert (await ask(where, get("/live")))[0] == 200
    status, _, body = await ask(where, get("/ready"))
    assert (status, b"not-attached" in body) == (503, True)
    assert b"klinket_relay_pairs 0.0" in (await ask(where, get("/metrics")))[2]
    stop.set()
    await asyncio.wait_for(running, 20)
