"""A flow through a pipe is faithful: every byte once, ends as ends, resets as resets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import socket

import pytest
import uvloop

from klinket.domain.flow import FlowFailure
from klinket.net import sockets
from klinket.net import stream as pump_module
from klinket.net.flow_summary import FlowSummary
from klinket.net.pump import Pump
from klinket.wire import pipe as wire
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure
from tests.eventually import PATIENCE, eventually
from tests.unit.net.conftest import Ends, pipe_ends, tcp_pair

MEBIBYTE = 1 << 20


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


class Flow:
    """program <-> pump <-> pipe <-> pump <-> resource, all on real sockets."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.program, local = tcp_pair()
        self.resource, remote = tcp_pair()
        self.client = Pump(local, ends.client)
        self.connector = Pump(remote, ends.connector)
        self.summaries = asyncio.gather(self.client.start(), self.connector.start())

    async def ended(self) -> list[FlowSummary]:
        async with asyncio.timeout(20):
            return list(await self.summaries)

    def close(self) -> None:
        self.program.close()
        self.resource.close()


async def send_slowly(sock: socket.socket, total: int, seed: int) -> str:
    """Send `total` bytes in random pieces with random pauses, then end the stream; returns their digest."""
    loop, rng, digest = asyncio.get_running_loop(), random.Random(seed), hashlib.sha256()
    left = total
    while left:
        piece = rng.randbytes(min(left, rng.choice((1, 100, 65_536, MEBIBYTE))))
        digest.update(piece)
        await loop.sock_sendall(sock, piece)
        left -= len(piece)
        if rng.random() < 0.05:
            await asyncio.sleep(rng.random() / 100)
    sock.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


async def read_slowly(sock: socket.socket, seed: int, first: int = 0, go_on: asyncio.Event | None = None) -> str:
    """Read to the end, in random pieces with random pauses; returns the digest.

    `go_on`: what it waits for after `first` bytes: however fast the machine is, the flow is not over before.
    """
    loop, rng, digest, total = asyncio.get_running_loop(), random.Random(seed), hashlib.sha256(), 0
    if go_on is not None and not first:
        await go_on.wait()
    while data := await loop.sock_recv(sock, rng.choice((1, 4096, MEBIBYTE))):
        digest.update(data)
        total += len(data)
        if go_on is not None and total >= first:
            await go_on.wait()
        if rng.random() < 0.02:
            await asyncio.sleep(rng.random() / 50)
    return digest.hexdigest()


@pytest.mark.parametrize("seed", range(3))
async def test_bytes_arrive_unaltered_both_ways_under_back_pressure(ends: Ends, seed: int) -> None:
    flow = Flow(ends)
    async with asyncio.timeout(100):
        sent_up, sent_down, read_up, read_down = await asyncio.gather(
            send_slowly(flow.program, 24 * MEBIBYTE + 13, seed),
            send_slowly(flow.resource, 24 * MEBIBYTE + 7, seed + 100),
            read_slowly(flow.resource, seed + 200),
            read_slowly(flow.program, seed + 300),
        )
    assert (sent_up, sent_down) == (read_up, read_down)
    client, connector = await flow.ended()
    assert client.failure is None
    assert connector.failure is None
    assert client.bytes_sent == connector.bytes_received == 24 * MEBIBYTE + 13
    assert not ends.client.closed
    flow.close()


async def test_a_pipe_carries_one_flow_after_another(ends: Ends) -> None:
    loop = asyncio.get_running_loop()
    for number in range(5):
        await ends.client.send(FrameType.OPEN, b"open %d" % number)
        assert (await ends.connector.receive()).content == b"open %d" % number
        await ends.connector.send(FrameType.OPENED)
        assert (await ends.client.receive()).type is FrameType.OPENED
        flow = Flow(ends)
        await loop.sock_sendall(flow.program, b"question")
        assert await loop.sock_recv(flow.resource, 100) == b"question"
        flow.program.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(flow.resource, 100) == b""
        await loop.sock_sendall(flow.resource, b"answer after the question ended")
        assert await loop.sock_recv(flow.program, 100) == b"answer after the question ended"
        flow.resource.close()
        assert await loop.sock_recv(flow.program, 100) == b""
        assert [summary.failure for summary in await flow.ended()] == [None, None]
        flow.close()


async def test_others_have_their_turns_between_frames_that_come_at_once(ends: Ends) -> None:
    count = 20 * pump_module.MAX_FRAMES
    resource, remote = tcp_pair()
    pump = Pump(remote, ends.connector)
    over = pump.start()
    frames = [ends.client.sealer.seal(FrameType.DATA, bytes((number % 251,))) for number in range(count)]
    data = b"".join(frames) + ends.client.sealer.seal(FrameType.FIN, b"")
    before, most = 0, 0
    async with asyncio.timeout(PATIENCE):
        while pump.bytes_received < count:
            if data:
                data = data[ends.client.sock.send(data) :]
            await asyncio.sleep(0)
            most, before = max(most, pump.bytes_received - before), pump.bytes_received
        came = b""
        while more := await asyncio.get_running_loop().sock_recv(resource, 65_536):
            came += more
    assert came == bytes(number % 251 for number in range(count))
    # One turn may hold what was left of the last one, and what the socket has brought since.
    assert most <= 2 * pump_module.MAX_FRAMES
    resource.close()
    async with asyncio.timeout(PATIENCE):
        assert (await over).failure is None


async def test_data_that_comes_with_the_opened_frame_is_not_lost(ends: Ends) -> None:
    loop = asyncio.get_running_loop()
    await ends.connector.send(FrameType.OPENED)
    resource, remote = tcp_pair()
    pump = Pump(remote, ends.connector)
    pump.start()
    await loop.sock_sendall(resource, b"the resource speaks first")
    await eventually(lambda: pump.bytes_sent)
    assert (await ends.client.receive()).type is FrameType.OPENED
    program, local = tcp_pair()
    Pump(local, ends.client).start()
    assert await loop.sock_recv(program, 100) == b"the resource speaks first"
    program.close()
    resource.close()


async def reset_is_seen(sock: socket.socket) -> bool:
    try:
        while await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65_536), 5):
            pass
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize("which", ["program", "resource"])
async def test_a_reset_on_one_side_is_a_reset_on_the_other(ends: Ends, which: str) -> None:
    flow = Flow(ends)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(flow.program, b"x")
    assert await loop.sock_recv(flow.resource, 1) == b"x"
    here, there = (flow.program, flow.resource) if which == "program" else (flow.resource, flow.program)
    sockets.reset(here)
    assert await reset_is_seen(there)
    assert all(summary.failure is not None for summary in await flow.ended())
    assert ends.client.closed
    assert ends.connector.closed
    flow.close()


async def test_a_stream_cut_off_without_fin_is_a_reset_never_a_clean_end(ends: Ends) -> None:
    flow = Flow(ends)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(flow.resource, b"half of the ans")
    assert await loop.sock_recv(flow.program, 100) == b"half of the ans"
    ends.connector.sock.shutdown(socket.SHUT_WR)  # an attacker, or a dying relay, ends the TCP stream cleanly
    assert await reset_is_seen(flow.program)
    flow.close()


async def test_a_cut_resets_both_sides_and_says_why(ends: Ends) -> None:
    flow = Flow(ends)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(flow.program, b"x")
    assert await loop.sock_recv(flow.resource, 1) == b"x"
    flow.connector.cut(Failure(FlowFailure.CUT, "the key was revoked"))
    assert await reset_is_seen(flow.resource)
    assert await reset_is_seen(flow.program)
    client, connector = await flow.ended()
    assert connector.failure == Failure(FlowFailure.CUT, "the key was revoked")
    assert client.failure == Failure(FlowFailure.CUT, "the key was revoked")
    flow.close()


@pytest.mark.parametrize("side", ["client", "connector"])
async def test_cancelling_a_flow_resets_both_ends(ends: Ends, side: str) -> None:
    program, local = tcp_pair()
    pipe, other = (ends.client, ends.connector) if side == "client" else (ends.connector, ends.client)
    carrying = asyncio.ensure_future(Pump(local, pipe).carry())
    await asyncio.get_running_loop().sock_sendall(program, b"x")
    assert (await other.receive()).content == b"x"
    carrying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await carrying
    assert await reset_is_seen(program)
    assert (await other.receive()).type is FrameType.FAIL
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(other.receive(), 5)
    assert local.fileno() == -1
    assert pipe.closed
    program.close()


async def test_a_cut_ends_a_flow_whose_waiter_was_cancelled(ends: Ends) -> None:
    program, local = tcp_pair()
    pump = Pump(local, ends.client)
    pump.start().cancel()
    pump.cut(Failure(FlowFailure.CUT))
    assert await reset_is_seen(program)
    assert ends.client.closed
    program.close()


async def test_a_flow_on_a_pipe_that_was_closed_ends_at_once(ends: Ends) -> None:
    program, local = tcp_pair()
    ends.client.abort()
    async with asyncio.timeout(5):
        summary = await Pump(local, ends.client).carry()
    assert summary.failure is not None
    assert await reset_is_seen(program)
    program.close()


async def test_a_cut_under_back_pressure_resets_at_once(ends: Ends) -> None:
    flow = Flow(ends)
    loop = asyncio.get_running_loop()
    sender = asyncio.ensure_future(loop.sock_sendall(flow.program, bytes(64 * MEBIBYTE)))
    await asyncio.sleep(0.3)  # the resource reads nothing: every buffer on the way is full
    assert not sender.done()
    flow.connector.cut(Failure(FlowFailure.CUT))
    flow.client.cut(Failure(FlowFailure.CUT))
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await asyncio.wait_for(sender, 5)
    await flow.ended()
    flow.close()


async def test_an_altered_frame_ends_the_flow_as_a_reset() -> None:
    ends = pipe_ends()
    frame = bytearray(ends.connector.sealer.seal(FrameType.DATA, b"content"))
    frame[-1] ^= 1
    program, local = tcp_pair()
    task = asyncio.ensure_future(Pump(local, ends.client).carry())
    await asyncio.sleep(0)
    ends.connector.sock.send(frame)
    assert await reset_is_seen(program)
    assert (await task).failure is not None
    ends.connector.abort()
    program.close()


async def test_an_oversized_length_ends_the_pipe_before_anything_is_buffered() -> None:
    ends = pipe_ends()
    ends.connector.sock.send((1 << 30).to_bytes(4, "big") + os.urandom(64))
    with pytest.raises(Exception, match="limit"):
        await ends.client.receive()
    assert ends.client.closed
    ends.connector.abort()


@pytest.mark.parametrize("side", ["program", "resource"])
async def test_a_reset_is_seen_though_the_other_side_reads_nothing(
    ends: Ends, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "LOOK_SECONDS", 0.05)
    flow = Flow(ends)
    loop = asyncio.get_running_loop()
    here, there = (flow.program, flow.resource) if side == "program" else (flow.resource, flow.program)
    sender = asyncio.ensure_future(loop.sock_sendall(here, bytes(64 * MEBIBYTE)))
    await asyncio.sleep(0.3)
    assert not sender.done(), "every buffer on the way is full"
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)
    sockets.reset(here)
    assert all(summary.failure is not None for summary in await flow.ended()), "nobody read a byte, and both ends know"
    assert await reset_is_seen(there)
    flow.close()


async def test_a_reset_pipe_is_seen_though_the_program_reads_nothing(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "LOOK_SECONDS", 0.05)
    flow = Flow(ends)
    sender = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(flow.resource, bytes(64 * MEBIBYTE)))
    await asyncio.sleep(0.3)
    flow.connector.cut(Failure(FlowFailure.CUT))
    client, _ = await flow.ended()
    assert client.failure is not None
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)
    assert await reset_is_seen(flow.program)
    flow.close()


@pytest.mark.parametrize("side", ["program", "resource"])
async def test_a_reset_after_its_half_close_is_seen_though_no_byte_moves(
    ends: Ends, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "LOOK_SECONDS", 0.05)
    flow = Flow(ends)
    here, there = (flow.program, flow.resource) if side == "program" else (flow.resource, flow.program)
    here.shutdown(socket.SHUT_WR)
    assert await asyncio.get_running_loop().sock_recv(there, 1) == b""
    sockets.reset(here)
    assert all(summary.failure is not None for summary in await flow.ended())
    await eventually(lambda: sockets.was_reset(there))
    flow.close()


async def test_bytes_for_one_who_has_closed_are_answered_with_a_reset(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "LOOK_SECONDS", 0.05)
    flow = Flow(ends)
    loop = asyncio.get_running_loop()
    flow.resource.close()
    assert await loop.sock_recv(flow.program, 1) == b""
    await loop.sock_sendall(flow.program, b"is anybody there?")
    await eventually(lambda: sockets.was_reset(flow.program))
    flow.close()


async def test_an_urgent_byte_stays_in_the_stream(ends: Ends) -> None:
    flow = Flow(ends)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(flow.program, b"before")
    flow.program.send(b"!", socket.MSG_OOB)
    await loop.sock_sendall(flow.program, b"after")
    flow.program.shutdown(socket.SHUT_WR)
    assert await read_all(flow.resource) == b"before!after"
    flow.close()


async def read_all(sock: socket.socket) -> bytes:
    data = b""
    while more := await asyncio.get_running_loop().sock_recv(sock, 100):
        data += more
    return data


async def stands_still(pump: Pump) -> None:
    """Wait until nothing more has been taken from the program for a while."""
    async with asyncio.timeout(PATIENCE):
        taken = -1
        while taken != (taken := pump.bytes_sent):
            await asyncio.sleep(0.3)


async def test_a_slow_reader_holds_a_bounded_amount(ends: Ends) -> None:
    flow = Flow(ends)
    sender = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(flow.program, bytes(128 * MEBIBYTE)))
    await stands_still(flow.client)
    assert not sender.done()
    held = [part for pump in (flow.client, flow.connector) for part in (pump._to_pipe, pump._to_local) if part is not None]
    assert sum(map(len, held)) <= 4 * MEBIBYTE
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)
    flow.client.cut(Failure(FlowFailure.RESET))
    flow.connector.cut(Failure(FlowFailure.RESET))
    flow.close()


async def test_a_fin_that_carries_bytes_is_refused_and_not_passed_on_as_an_end() -> None:
    ends = pipe_ends()
    program, local = tcp_pair()
    task = asyncio.ensure_future(Pump(local, ends.client).carry())
    await asyncio.sleep(0)
    ends.connector.sock.send(ends.connector.sealer.seal(FrameType.FIN, b"the last bytes"))
    assert await reset_is_seen(program)
    assert (await task).failure is not None
    ends.connector.abort()
    program.close()


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 5, 20, 99, 116])
async def test_a_stream_cut_inside_a_frame_is_a_reset(keep: int) -> None:
    ends = pipe_ends()
    program, local = tcp_pair()
    task = asyncio.ensure_future(Pump(local, ends.client).carry())
    await asyncio.sleep(0)
    whole, part = (ends.connector.sealer.seal(FrameType.DATA, content) for content in (b"whole", bytes(97)))
    ends.connector.sock.send(whole + part[:keep])
    ends.connector.sock.shutdown(socket.SHUT_WR)
    assert await asyncio.get_running_loop().sock_recv(program, 100) == b"whole"
    assert await reset_is_seen(program)
    assert (await task).failure is not None
    ends.connector.abort()
    program.close()


async def test_keys_move_under_load_and_no_byte_is_lost(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_KEY_FRAMES", 7)
    monkeypatch.setattr(wire, "MAX_KEY_BYTES", 300_000)
    flow = Flow(ends)
    async with asyncio.timeout(60):
        sent_up, sent_down, read_up, read_down = await asyncio.gather(
            send_slowly(flow.program, 6 * MEBIBYTE + 13, 1),
            send_slowly(flow.resource, 6 * MEBIBYTE + 7, 2),
            read_slowly(flow.resource, 3),
            read_slowly(flow.program, 4),
        )
    assert (sent_up, sent_down) == (read_up, read_down)
    assert [summary.failure for summary in await flow.ended()] == [None, None]
    flow.close()


@pytest.mark.parametrize("which", ["client", "connector"])
async def test_a_flow_ends_as_a_reset_when_the_frames_of_its_pipe_are_used_up(ends: Ends, which: str) -> None:
    for side in (
        (ends.client.sealer, ends.connector.receiver._opener)
        if which == "client"
        else (
            ends.connector.sealer,
            ends.client.receiver._opener,
        )
    ):
        side._counter = 2**64 - 1
    flow = Flow(ends)
    loop = asyncio.get_running_loop()
    here, there = (flow.program, flow.resource) if which == "client" else (flow.resource, flow.program)
    await loop.sock_sendall(here, b"the last frame there is")
    assert await loop.sock_recv(there, 100) == b"the last frame there is"
    await loop.sock_sendall(here, b"one more")
    assert await reset_is_seen(there)
    assert all(summary.failure is not None for summary in await flow.ended())
    flow.close()


def test_a_process_that_is_killed_leaves_resets_and_no_clean_end() -> None:
    """SIGKILL: its kernel ends the connections, and a truncated stream must not look whole."""
    here, local = tcp_pair()
    child = os.fork()
    if child == 0:
        here.close()

        async def carry() -> None:
            ends = pipe_ends()
            Pump(local, ends.client).start()
            await asyncio.sleep(0.05)
            local.send(b"half of the ans")
            await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.Runner(loop_factory=asyncio.new_event_loop).run(carry())
        os._exit(1)
    local.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    here.setblocking(True)
    with pytest.raises(ConnectionResetError):
        while here.recv(100):
            pass
    here.close()
