"""Flows that workers carry are what they were before: every byte once, ends as ends, cuts at once, and no silent loss."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.net import carrying, descriptors, pump_worker, sockets, workers
from klinket.net import pipe as pipes
from klinket.net.carrying import Carrying
from klinket.net.pacing import Lanes
from klinket.net.pump_state import KEYS_BYTES, PumpState
from klinket.net.workers import Program
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure
from tests.eventually import eventually
from tests.unit.net import hasty_worker
from tests.unit.net.conftest import Ends, pipe_ends
from tests.unit.net.test_pump import MEBIBYTE, Flow, read_slowly, reset_is_seen, send_slowly

pytestmark = pytest.mark.skipif(not workers.there_are(), reason="no worker processes on this system")
FRAME_SECONDS = 1.0


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


@pytest.fixture
async def two() -> AsyncIterator[Carrying]:
    """Two workers that are ready."""
    made = Carrying(Program(pump_worker.__name__, str(FRAME_SECONDS)), 2)
    carrying._carrying = made
    await ready(made, 1)
    yield made
    made.close()
    carrying._carrying = None


async def ready(made: Carrying, count: int) -> None:
    deadline = time.monotonic() + 20
    while sum(worker.ready for worker in made.pool._workers) < count:
        assert time.monotonic() < deadline
        made.pool._choose(busy=True)
        await asyncio.sleep(0.02)


async def passes(flow: Flow) -> None:
    """A byte goes each way."""
    loop = asyncio.get_running_loop()
    for here, there in ((flow.program, flow.resource), (flow.resource, flow.program)):
        await loop.sock_sendall(here, b"x")
        assert await asyncio.wait_for(loop.sock_recv(there, 1), 5) == b"x"


@pytest.mark.parametrize("seed", range(2))
async def test_bytes_arrive_unaltered_when_a_flow_moves_under_back_pressure(two: Carrying, ends: Ends, seed: int) -> None:
    flow = Flow(ends)
    moved = asyncio.Event()

    async def move() -> None:
        await eventually(lambda: flow.connector.bytes_received > (1 + 2 * seed) * MEBIBYTE)
        assert two.give(flow.client)
        before = flow.connector.bytes_received
        await eventually(lambda: flow.connector.bytes_received > before + MEBIBYTE)
        assert two.give(flow.connector)
        moved.set()

    async with asyncio.timeout(100):
        sent_up, sent_down, read_up, read_down, _ = await asyncio.gather(
            send_slowly(flow.program, 24 * MEBIBYTE + 13, seed),
            send_slowly(flow.resource, 24 * MEBIBYTE + 7, seed + 100),
            read_slowly(flow.resource, seed + 200, 12 * MEBIBYTE, moved),
            read_slowly(flow.program, seed + 300, 12 * MEBIBYTE, moved),
            move(),
        )
    assert (sent_up, sent_down) == (read_up, read_down)
    client, connector = await flow.ended()
    assert client.failure is None
    assert connector.failure is None
    assert client.bytes_sent == connector.bytes_received == 24 * MEBIBYTE + 13
    assert client.bytes_received == connector.bytes_sent == 24 * MEBIBYTE + 7
    flow.close()


async def test_a_pipe_comes_back_for_the_next_flow(two: Carrying, ends: Ends) -> None:
    loop = asyncio.get_running_loop()
    for number in range(4):
        await ends.client.send(FrameType.OPEN, b"open %d" % number)
        assert (await ends.connector.receive()).content == b"open %d" % number
        await ends.connector.send(FrameType.OPENED)
        assert (await ends.client.receive()).type is FrameType.OPENED
        flow = Flow(ends)
        await passes(flow)
        for pump in (flow.client, flow.connector)[number % 2 :]:
            assert two.give(pump)
        await passes(flow)
        flow.program.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(flow.resource, 100) == b""
        await loop.sock_sendall(flow.resource, b"answer after the question ended")
        assert await loop.sock_recv(flow.program, 100) == b"answer after the question ended"
        flow.resource.close()
        assert await loop.sock_recv(flow.program, 100) == b""
        assert [summary.failure for summary in await flow.ended()] == [None, None]
        flow.close()


async def test_the_process_that_gave_a_flow_away_seals_and_opens_nothing_of_it(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    await passes(flow)
    assert two.give(flow.client)
    with pytest.raises(ConnectionResetError):
        ends.client.sealer.seal(FrameType.DATA, b"under a nonce of the worker's")
    assert ends.client.sock.fileno() == -1
    with pytest.raises(ProtocolError):
        ends.client.receiver._opener.open(bytes(100))
    flow.close()


async def test_a_flow_whose_answer_is_awaited_stays_here(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    flow.client.opening = True
    with pytest.raises(ConnectionResetError):
        flow.client.hand_over()
    two.give(flow.client)
    assert sum(two.pool.sizes) == 0
    assert flow.client in two._here
    flow.client.opening = False
    await passes(flow)
    assert two.give(flow.client)
    assert sum(two.pool.sizes) == 1
    await passes(flow)
    flow.close()


@pytest.mark.parametrize("which", ["program", "resource"])
async def test_a_reset_is_passed_on_through_workers(two: Carrying, ends: Ends, which: str) -> None:
    flow = Flow(ends)
    await passes(flow)
    assert two.give(flow.client)
    assert two.give(flow.connector)
    await passes(flow)
    here, there = (flow.program, flow.resource) if which == "program" else (flow.resource, flow.program)
    sockets.reset(here)
    assert await reset_is_seen(there)
    assert all(summary.failure is not None for summary in await flow.ended())
    flow.close()


async def test_a_cut_is_over_at_the_worker_when_settle_returns(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    await passes(flow)
    assert two.give(flow.connector)
    await passes(flow)
    flow.connector.cut(Failure(FlowFailure.CUT, "the key was revoked"))
    carrying.settle()
    with pytest.raises(ConnectionResetError):  # now, without another turn of the loop
        flow.resource.recv(1)
    client, connector = await flow.ended()
    assert connector.failure == Failure(FlowFailure.CUT, "the key was revoked")
    assert client.failure == Failure(FlowFailure.CUT, "the key was revoked")
    assert await reset_is_seen(flow.program)
    flow.close()


async def test_a_worker_that_does_not_end_a_flow_is_killed_and_the_flow_with_it(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    await passes(flow)
    assert two.give(flow.connector)
    await passes(flow)
    next(worker for worker in two.pool._workers if worker.items).process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    flow.connector.cut(Failure(FlowFailure.CUT, "the key was revoked"))
    carrying.settle()
    assert time.monotonic() - begun < workers.CONFIRM_SECONDS + workers.KILLED_SECONDS + 2
    assert await reset_is_seen(flow.resource)
    assert await reset_is_seen(flow.program)
    assert all(summary.failure is not None for summary in await flow.ended())
    flow.close()


async def test_a_worker_that_dies_resets_its_flows_and_another_takes_its_place(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    await passes(flow)
    assert two.give(flow.client)
    assert two.give(flow.connector)
    await passes(flow)
    for worker in list(two.pool._workers):
        worker.process.kill()
    assert await reset_is_seen(flow.program)  # a clean end would hide that bytes are missing
    assert await reset_is_seen(flow.resource)
    summaries = await flow.ended()
    assert [summary.failure.failure for summary in summaries if summary.failure] == [FlowFailure.RESET] * 2
    flow.close()
    await ready(two, 1)
    fresh = pipe_ends()
    again = Flow(fresh)
    await passes(again)
    assert two.give(again.client)
    await passes(again)
    again.close()
    fresh.client.abort()
    fresh.connector.abort()


async def hasty(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> tuple[Carrying, Flow]:
    """A flow at a worker that ends after a second without a word."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    made = Carrying(Program(hasty_worker.__name__, str(FRAME_SECONDS)), 1)
    await ready(made, 1)
    flow = Flow(ends)
    await passes(flow)
    assert made.give(flow.connector)
    await passes(flow)
    return made, flow


async def test_a_worker_whose_deciding_process_stalls_ends_and_resets_its_flows(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.WorkerPool, "_tick", lambda _: None)  # as where its loop does not run
    made, flow = await hasty(ends, monkeypatch)
    try:
        assert await reset_is_seen(flow.resource)
        assert await reset_is_seen(flow.program)
        assert all(summary.failure is not None for summary in await flow.ended())
    finally:
        made.close()
        flow.close()


async def test_a_worker_goes_on_while_its_deciding_process_does_though_no_work_comes(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "TICK_SECONDS", 0.1)
    made, flow = await hasty(ends, monkeypatch)
    try:
        await asyncio.sleep(2.5)
        await passes(flow)
    finally:
        made.close()
        flow.close()


async def test_a_worker_that_has_stalled_itself_hears_what_was_said_meanwhile(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "TICK_SECONDS", 0.1)
    made, flow = await hasty(ends, monkeypatch)
    try:
        process = made.pool._workers[0].process
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2)
        process.send_signal(signal.SIGCONT)
        await passes(flow)
        await asyncio.sleep(0.5)
        await passes(flow)
    finally:
        made.close()
        flow.close()


async def test_a_flow_stays_where_no_worker_takes_it(ends: Ends) -> None:
    made = Carrying(Program("klinket.no_such_module"), 2)
    try:
        flow = Flow(ends)
        await passes(flow)
        assert not made.give(flow.client)
        await passes(flow)
        flow.program.shutdown(socket.SHUT_WR)
        flow.resource.shutdown(socket.SHUT_WR)
        assert [summary.failure for summary in await flow.ended()] == [None, None]
        flow.close()
    finally:
        made.close()


async def test_cancelling_a_flow_ends_it_at_the_worker(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    waiting = asyncio.ensure_future(flow.client.carry())
    await passes(flow)
    assert two.give(flow.client)
    await passes(flow)
    waiting.cancel()
    assert await reset_is_seen(flow.program)
    assert await reset_is_seen(flow.resource)
    flow.close()


async def test_flows_that_move_much_are_given_to_workers_and_idle_ones_are_not(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    await passes(flow)
    await asyncio.sleep(3 * workers.LOOK_SECONDS)
    assert sum(two.pool.sizes) == 0
    await asyncio.gather(send_slowly(flow.program, workers.MUCH_BYTES + MEBIBYTE, 1), read_slowly(flow.resource, 2))
    await eventually(lambda: sum(two.pool.sizes) == 2)
    flow.resource.shutdown(socket.SHUT_WR)
    assert [summary.failure for summary in await flow.ended()] == [None, None]
    flow.close()


@pytest.mark.parametrize(
    ("moved", "kept", "started", "given_away"),
    [
        ({"old": 0, "much": workers.MUCH_BYTES}, 10, False, []),
        ({"old": 0, "much": workers.MUCH_BYTES}, 10, True, [("much", True)]),
        ({"one": workers.MUCH_BYTES, "other": workers.MUCH_BYTES}, 10, False, [("one", True), ("other", True)]),
        ({"much": workers.MUCH_BYTES, "old": 0, "new": 0}, 1, False, [("much", False), ("old", False)]),
    ],
)
def test_a_busy_flow_stays_while_it_is_the_only_one_and_there_is_no_worker(
    moved: dict[str, int], kept: int, started: bool, given_away: list[tuple[str, bool]]
) -> None:
    found = []

    def give(one: str, busy: bool) -> bool:
        found.append((one, busy))
        return True

    workers.give_away(moved, moved.__getitem__, kept, give, started=started)
    assert found == given_away


@pytest.mark.parametrize(("files", "kept"), [(1_024, 240), (20_000, 7_468)])
async def test_a_process_keeps_its_flows_while_files_are_left_for_those_to_come(
    monkeypatch: pytest.MonkeyPatch, files: int, kept: int
) -> None:
    monkeypatch.setattr(descriptors, "raise_limit", lambda: files)
    made = Carrying(Program(pump_worker.__name__, "0"), 2)
    made.close()
    assert made._kept == kept


async def test_a_copied_machine_has_no_worker_any_more(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    await passes(flow)
    assert two.give(flow.client)
    await passes(flow)
    pipes.forget_all_keys()
    assert await reset_is_seen(flow.program)
    flow.close()


async def test_a_frame_left_incomplete_ends_the_flow_at_the_worker(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    await passes(flow)
    assert two.give(flow.connector)
    await passes(flow)
    ends.client.sock.send(b"\x00\x00\x10\x00 half of a frame")
    connector = await asyncio.wait_for(flow.connector._done, pump_worker.LOOK_SECONDS + FRAME_SECONDS + 5)
    assert connector.failure is not None
    assert connector.failure.failure is FlowFailure.TIMED_OUT
    flow.close()


@given(
    st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=50), st.booleans(), st.booleans(), st.integers(0, 2**63)
)
def test_a_state_is_decoded_as_it_was(left: bytes, to_pipe: bytes, to_local: bytes, one: bool, two: bool, count: int) -> None:
    state = PumpState(os.urandom(KEYS_BYTES), left, to_pipe, to_local, one, two, count, count // 2)
    assert PumpState.decode(state.encode()) == state


@given(st.binary(max_size=400))
def test_anything_else_is_no_state(data: bytes) -> None:
    try:
        assert PumpState.decode(data).encode() == data
    except ProtocolError:
        pass


def test_a_state_shows_no_keys() -> None:
    assert "K" * 8 not in repr(PumpState(b"K" * KEYS_BYTES, b"K" * 9, b"K" * 9, b"K" * 9, False, False, 0, 0))


async def test_what_a_flow_has_moved_is_known_here_while_a_worker_carries_it(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    await passes(flow)
    assert two.give(flow.client)
    await passes(flow)
    await passes(flow)
    await eventually(lambda: (flow.client.bytes_sent, flow.client.bytes_received) == (3, 3))
    flow.close()


@given(st.binary(max_size=40))
def test_what_a_worker_says_of_bytes_is_two_numbers_or_refused(content: bytes) -> None:
    if len(content) == 16:
        assert all(count >= 0 for count in pump_worker.decode_moved(content))
    else:
        with pytest.raises(ProtocolError):
            pump_worker.decode_moved(content)


async def test_a_flow_that_gets_a_bandwidth_comes_back_and_loses_no_byte(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    was_paced = asyncio.Event()

    async def move() -> None:
        await asyncio.sleep(0.05)
        assert two.give(flow.connector)
        await asyncio.sleep(0.05)
        flow.connector.pace(Lanes.of(8 * MEBIBYTE))
        was_paced.set()
        await eventually(lambda: sum(two.pool.sizes) == 0)

    async with asyncio.timeout(100):
        sent_up, sent_down, read_up, read_down, _ = await asyncio.gather(
            send_slowly(flow.program, 8 * MEBIBYTE + 13, 1),
            send_slowly(flow.resource, 8 * MEBIBYTE + 7, 2),
            read_slowly(flow.resource, 3, 0, was_paced),
            read_slowly(flow.program, 4),
            move(),
        )
    assert (sent_up, sent_down) == (read_up, read_down)
    assert [summary.failure for summary in await flow.ended()] == [None, None]
    assert flow.connector.stays
    flow.close()


async def test_a_cut_reaches_a_flow_that_is_on_its_way_back(two: Carrying, ends: Ends) -> None:
    flow = Flow(ends)
    await passes(flow)
    assert two.give(flow.connector)
    flow.connector.pace(Lanes.of(MEBIBYTE))
    flow.connector.cut(Failure(FlowFailure.CUT, "meanwhile"))
    two.pool.settle()
    assert await reset_is_seen(flow.resource)
    assert (await flow.ended())[1].failure == Failure(FlowFailure.CUT, "meanwhile")
    flow.close()
