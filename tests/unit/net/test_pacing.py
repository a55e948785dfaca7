"""Flows in lanes: no more than the rate, every byte, equal parts, and ends and cuts as without."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import pytest
import uvloop

from klinket.domain.flow import FlowFailure
from klinket.domain.shaper import burst_of
from klinket.net.pacing import MAX_WAITING_DATAGRAMS, DatagramLane, Lanes, Line, Passing
from klinket.net.pump import Pump
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure
from tests.eventually import eventually
from tests.unit.net.conftest import Ends, pipe_ends, tcp_pair
from tests.unit.net.test_pump import MEBIBYTE, Flow, read_slowly, send_slowly

RATE = 2 * MEBIBYTE


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


async def read_for(sock: socket.socket, seconds: float) -> int:
    """Return how many bytes come within a time."""
    loop, total = asyncio.get_running_loop(), 0
    try:
        async with asyncio.timeout(seconds):
            while data := await loop.sock_recv(sock, 1 << 20):
                total += len(data)
    except TimeoutError:
        pass
    return total


async def write(sock: socket.socket) -> None:
    """Write zeros without end."""
    while True:
        await asyncio.get_running_loop().sock_sendall(sock, bytes(65_536))


async def test_every_byte_arrives_and_no_more_than_the_rate(ends: Ends) -> None:
    flow = Flow(ends)
    flow.connector.pace(Lanes.of(RATE))
    begun = time.monotonic()
    async with asyncio.timeout(60):
        sent_up, sent_down, read_up, read_down = await asyncio.gather(
            send_slowly(flow.program, 3 * MEBIBYTE + 13, 1),
            send_slowly(flow.resource, 3 * MEBIBYTE + 7, 2),
            read_slowly(flow.resource, 3),
            read_slowly(flow.program, 4),
        )
    assert (sent_up, sent_down) == (read_up, read_down)
    assert RATE * (time.monotonic() - begun) + burst_of(RATE) >= 3 * MEBIBYTE  # each direction by itself
    assert [summary.failure for summary in await flow.ended()] == [None, None]
    flow.close()


@pytest.mark.parametrize("from_client", [True, False])
async def test_flows_of_one_lane_get_equal_parts(from_client: bool) -> None:
    lanes = Lanes.of(RATE)
    all_ends = [pipe_ends() for _ in range(3)]
    flows = [Flow(ends) for ends in all_ends]
    for flow in flows:
        flow.connector.pace(lanes)
    writing = [asyncio.ensure_future(write(flow.program if from_client else flow.resource)) for flow in flows]
    begun = time.monotonic()
    got = await asyncio.gather(*(read_for(flow.resource if from_client else flow.program, 2.0) for flow in flows))
    took = time.monotonic() - begun
    for task in writing:
        task.cancel()
    assert sum(got) <= RATE * took + burst_of(RATE)
    assert sum(got) >= RATE  # half of what it may be, on a machine that is busy
    assert max(got) <= 1.5 * min(got) + burst_of(RATE)
    assert (lanes.from_clients if from_client else lanes.to_clients).waits > 0
    for flow, ends in zip(flows, all_ends, strict=True):
        flow.connector.cut(Failure(FlowFailure.CUT))
        flow.client.cut(Failure(FlowFailure.CUT))
        flow.close()
        ends.client.abort()
        ends.connector.abort()


async def test_a_lane_is_given_changed_and_taken_away_while_a_flow_lives(ends: Ends) -> None:
    flow = Flow(ends)
    writing = asyncio.ensure_future(write(flow.resource))
    free = await read_for(flow.program, 0.5)
    lanes = Lanes.of(100_000)
    flow.connector.pace(lanes)
    await read_for(flow.program, 1.0)  # what was on the way already
    slow = await read_for(flow.program, 1.0)
    assert slow <= 100_000 * 1.5 + burst_of(100_000)
    for line in lanes:
        line.set_rate(1_000_000)
    faster = await read_for(flow.program, 1.0)
    assert faster > 2 * slow
    for line in lanes:
        line.set_rate(None)
    flow.connector.pace(None)
    assert await read_for(flow.program, 0.5) > min(free / 10, 4 * faster)
    writing.cancel()
    flow.connector.cut(Failure(FlowFailure.CUT))
    await flow.ended()
    flow.close()


async def test_a_cut_ends_a_flow_that_waits_at_once(ends: Ends) -> None:
    flow = Flow(ends)
    lanes = Lanes.of(10_000)
    flow.connector.pace(lanes)
    writing = [asyncio.ensure_future(write(sock)) for sock in (flow.resource, flow.program)]
    await eventually(lambda: [line._shaper.waiting for line in lanes] == [1, 1])
    flow.connector.cut(Failure(FlowFailure.CUT, "enough"))
    assert [line._shaper.waiting for line in lanes] == [0, 0]
    failures = await asyncio.wait_for(asyncio.gather(*writing, return_exceptions=True), 5)
    assert [type(failure) for failure in failures] == [ConnectionResetError, ConnectionResetError]
    assert (await flow.ended())[1].failure == Failure(FlowFailure.CUT, "enough")
    flow.close()


async def test_who_waits_for_its_turn_costs_nothing_meanwhile(ends: Ends) -> None:
    flow = Flow(ends)
    lanes = Lanes.of(10_000)
    flow.connector.pace(lanes)
    writing = [asyncio.ensure_future(write(sock)) for sock in (flow.resource, flow.program)]
    await eventually(lambda: [line._shaper.waiting for line in lanes] == [1, 1])
    before = time.process_time()
    await asyncio.sleep(1.0)
    assert time.process_time() - before < 0.5  # a watch that is always ready would use the whole second
    for task in writing:
        task.cancel()
    flow.connector.cut(Failure(FlowFailure.CUT))
    await flow.ended()
    flow.close()


async def test_a_frame_that_is_not_read_on_is_not_the_peers_delay(ends: Ends) -> None:
    local, resource = tcp_pair()
    pump = Pump(local, ends.connector)
    pump.pace(Lanes.of(10_000))
    pump.start()
    sealed = ends.client.sealer.seal(FrameType.DATA, os.urandom(200_000)) + ends.client.sealer.seal(FrameType.DATA, bytes(1_000))
    ends.client.sock.setblocking(True)
    await asyncio.to_thread(ends.client.sock.sendall, sealed[:-10])
    await eventually(lambda: pump.bytes_received == 200_000)
    await asyncio.sleep(0.1)
    assert pump.incomplete_since is None
    pump.cut(Failure(FlowFailure.CUT))
    resource.close()


async def test_datagrams_wait_within_bounds_and_are_dropped_and_counted_beyond() -> None:
    line, got = Line(100_000), []
    lane = DatagramLane(line, got.append)
    sent = [bytes([number]) * 1_000 for number in range(250)]
    begun = time.monotonic()
    for datagram in sent:
        lane.offer(datagram)
    at_once = len(got)
    assert 0 <= at_once * 1_000 - burst_of(100_000) + 1_000 <= 100_000 * (time.monotonic() - begun) + 1_000
    assert got == sent[:at_once]
    assert line.dropped == len(sent) - at_once - MAX_WAITING_DATAGRAMS
    await eventually(lambda: len(got) >= at_once + MAX_WAITING_DATAGRAMS)
    assert got == sent[: at_once + MAX_WAITING_DATAGRAMS]  # in order, and nothing twice
    lane.close()


async def test_datagrams_and_streams_share_a_lane(ends: Ends) -> None:
    flow, lanes, got = Flow(ends), Lanes.of(RATE), []
    flow.connector.pace(lanes)
    lane = DatagramLane(lanes.to_clients, got.append)
    writing = asyncio.ensure_future(write(flow.resource))
    reading = asyncio.ensure_future(read_for(flow.program, 2.0))
    begun = time.monotonic()
    while not reading.done():
        for _ in range(40):
            lane.offer(bytes(1_200))
        await asyncio.sleep(0.005)
    stream, datagrams = await reading, sum(map(len, got))
    writing.cancel()
    assert stream + datagrams <= RATE * (time.monotonic() - begun) + 2 * burst_of(RATE)
    assert datagrams > 0.2 * stream
    assert stream > 0.2 * datagrams
    assert lanes.to_clients.dropped > 0
    lane.close()
    flow.connector.cut(Failure(FlowFailure.CUT))
    await flow.ended()
    flow.close()


async def test_messages_of_a_task_wait_and_go_at_once_when_the_limit_is_taken_away() -> None:
    line = Line(10_000)
    await Passing(line).passes(60_000)
    waiting = asyncio.ensure_future(Passing(line).passes(60_000))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    line.set_rate(None)
    await asyncio.wait_for(waiting, 1)
