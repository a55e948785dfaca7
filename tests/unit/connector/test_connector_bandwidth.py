"""A limit of bandwidth holds for all flows of an account, reaches live ones, and is nothing to other accounts."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from klinket.connector.bandwidth import Bandwidth
from klinket.connector.core import Flow
from klinket.connector.limits import MAX_FLOWS
from klinket.domain.flow import TransportProtocol
from klinket.domain.identifiers import FlowId, RemoteNetworkId, ServiceAccountUuid
from klinket.domain.shaper import burst_of
from klinket.net.pacing import Lanes, PacedSocket
from klinket.net.pump import Pump
from klinket.wire.control import AccountLimits, LimitsOfAccount
from klinket.wire.pipe import FrameType
from klinket.wire.signing import KeySet
from tests.eventually import PATIENCE, eventually
from tests.unit.connector.conftest import ACCOUNT, DATABASE, KEY, LIMITS, NETWORK, OTHER_ACCOUNT, principal, tcp
from tests.unit.connector.test_connector_flows import Served, accepted, event_loop_policy, listener, served, where
from tests.work import calls

__all__ = ["event_loop_policy", "listener", "served"]  # fixtures
RATE = 100_000


def limit(served: Served, rate: int, account: str = ACCOUNT) -> None:
    """Set the bandwidth of one account, as a configuration does; 0: none."""
    limits = AccountLimits(new_flows_per_second=1000.0, new_flows_burst=1000, max_flows=MAX_FLOWS, bytes_per_second=rate)
    own = [LimitsOfAccount(service_account=account, limits=limits)] if rate else []
    served.world.core.configure(NETWORK, RemoteNetworkId(3), KeySet({KEY.kid: KEY.public_key}), LIMITS, own)
    served.server.limits_changed()


async def write(sock: socket.socket) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(sock, bytes(65_536))


async def comes(served: Served, seconds: float) -> int:
    """Return how many bytes the client gets in a time."""
    total = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                total += len((await served.ends.client.receive()).content)
    except TimeoutError:
        return total


def test_changed_limits_cost_the_flows_of_the_accounts_whose_limit_changed() -> None:
    limits: dict[str, int] = {}

    class Paced:
        """Stands in for a carrier: says how it was paced."""

        def __init__(self) -> None:
            self.told: list[Lanes | None] = []

        def pace(self, lanes: Lanes | None) -> None:
            self.told.append(lanes)

    def flow(account: str) -> Flow:
        who = principal(account=ServiceAccountUuid(account))
        return Flow(FlowId("f"), who, DATABASE, tcp("db.internal", 5432), 0.0, DATABASE.id, "")

    def work(others: int) -> int:
        limits.clear()
        bandwidth = Bandwidth(lambda account: limits.get(account, 0))
        flows = [(flow(account), Paced()) for account in ["one", "one"] + ["other"] * others]
        for which, carrier in flows:
            bandwidth.begins(which, carrier)  # type: ignore[arg-type]
        done = 0
        for rate in (RATE, 2 * RATE, 0):
            limits["one"] = rate
            done += calls(bandwidth.limits_changed)
        ours, theirs = [carrier.told for _, carrier in flows[:2]], [carrier.told for _, carrier in flows[2:]]
        assert [len(told) for told in ours] == [2, 2]
        assert ours[0] == ours[1]
        assert [told[-1] for told in ours] == [None, None]
        assert not any(theirs)
        for which, _ in flows:
            bandwidth.over(which)
        assert not bandwidth._flows
        assert not bandwidth._limits
        return done

    assert work(1) == work(1_000)


async def test_a_flow_of_a_limited_account_is_slower_than_one_of_another_account(served: Served, listener: socket.socket) -> None:
    limit(served, RATE, OTHER_ACCOUNT)
    await served.opened(where(listener))
    resource = await accepted(listener)
    writing = asyncio.ensure_future(write(resource))
    free = await comes(served, 1.0)
    assert served.server.bandwidth.accounts == 0
    limit(served, RATE)
    assert served.server.bandwidth.accounts == 1
    await comes(served, 1.0)  # what was on the way
    slow = await comes(served, 1.0)
    assert slow <= 1.5 * RATE + burst_of(RATE)
    assert free > 5 * slow
    assert served.server.bandwidth.waits > 0
    limit(served, 0)
    assert served.server.bandwidth.accounts == 0
    assert served.server.bandwidth.waits > 0
    assert await comes(served, 1.0) > 5 * slow
    writing.cancel()
    resource.close()


async def test_an_account_without_a_limit_has_the_plain_socket_and_may_move(served: Served, listener: socket.socket) -> None:
    limit(served, RATE, OTHER_ACCOUNT)
    await served.opened(where(listener))
    ((_, carrier),) = served.server.traffic.live()
    assert isinstance(carrier, Pump)
    assert not carrier.stays
    assert not isinstance(carrier._local, PacedSocket)
    limit(served, RATE)
    assert carrier.stays
    assert isinstance(carrier._local, PacedSocket)
    with pytest.raises(ConnectionResetError):
        carrier.hand_over()
    limit(served, 0)
    assert not carrier.stays
    assert not isinstance(carrier._local, PacedSocket)


async def test_a_limit_that_was_set_before_holds_from_the_first_byte_and_ends_with_the_last_flow(
    served: Served, listener: socket.socket
) -> None:
    limit(served, RATE)
    await served.opened(where(listener))
    resource = await accepted(listener)
    writing = asyncio.ensure_future(write(resource))
    assert await comes(served, 1.0) <= 1.5 * RATE + burst_of(RATE)
    writing.cancel()
    served.cut()
    await served.over()
    assert served.server.bandwidth.accounts == 0


async def test_datagrams_above_the_bandwidth_are_dropped_and_counted(served: Served) -> None:
    limit(served, RATE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resource:
        resource.bind(("127.0.0.1", 0))
        resource.setblocking(False)
        await served.opened(where(resource, TransportProtocol.UDP))
        begun = time.monotonic()
        for _ in range(300):
            await served.ends.client.send(FrameType.DATAGRAM, bytes(1_000))
        got = len(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(resource, 2_000), PATIENCE))
        await eventually(lambda: served.server.bandwidth.dropped)
        while True:
            try:
                got += len(resource.recv(2_000))
            except BlockingIOError:
                break
        assert got <= burst_of(RATE) + RATE * (time.monotonic() - begun)
