"""A worker process that carries flows it was handed: pipe and local socket, with the keys of that pipe and no others.

It knows no link, no grant, no resource, and opens no connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import time

from klinket.domain.errors import ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.net import collector, pipe
from klinket.net.flow_summary import FlowSummary
from klinket.net.pump import Pump
from klinket.net.pump_state import PumpState
from klinket.net.workers import WorkerEnd, begin_worker
from klinket.wire.pipe_messages import Failure

#: Messages to a worker: a flow (the state of its pump, with local and pipe), and its end (a failure).
CARRY, END = 1, 2
#: Message of a worker: how a flow has ended. Clean: with the pipe, for the next flow.
ENDED = 3
#: Message of a worker: what a flow that goes on has moved, for who looks at metrics: bytes sent and received.
MOVED = 4
#: Message to a worker: hand a flow back. Its answer: the state of its pump, with local and pipe.
RETURN, BACK = 5, 6
_MOVED = struct.Struct(">QQ")
#: Content of ENDED: bytes sent and received, whether a failure or a pipe (keys, and what was received) follows.
_SUMMARY = struct.Struct(">QQ?")
#: Seconds between looks at frames that do not become whole, and at what flows have moved.
LOOK_SECONDS = 5.0


def decode_moved(content: bytes) -> tuple[int, int]:
    """Return the bytes a flow has sent and received; raises ProtocolError."""
    if len(content) != _MOVED.size:
        raise ProtocolError("what a flow has moved is of another version")
    sent, received = _MOVED.unpack(content)
    return sent, received


def encode_end(summary: FlowSummary, keys: bytes, left: bytes) -> bytes:
    """Return the content of ENDED. `keys` and `left` count where there is no failure."""
    rest = keys + left if summary.failure is None else summary.failure.encode()
    return _SUMMARY.pack(summary.bytes_sent, summary.bytes_received, summary.failure is not None) + rest


def decode_end(content: bytes) -> tuple[FlowSummary, bytes]:
    """Return how a flow has ended, and keys and bytes of its pipe, empty where it has failed; raises ProtocolError."""
    if len(content) < _SUMMARY.size:
        raise ProtocolError("the end of a flow is too short")
    sent, received, failed = _SUMMARY.unpack_from(content)
    rest = content[_SUMMARY.size :]
    return FlowSummary(sent, received, Failure.decode(rest) if failed else None), b"" if failed else rest


class _Given:
    """Whoever has a flow that was handed back. Implements pump_state.Elsewhere."""

    def end(self, failure: Failure) -> None:
        """Nothing of it is here."""

    def come_back(self) -> None:
        """It does not."""


class PumpWorker:
    """All flows of this process. `frame_seconds`: from a frame's first byte to its last, or the flow ends; 0: however long."""

    def __init__(self, sock: socket.socket, frame_seconds: float) -> None:
        self._frame_seconds = frame_seconds
        self._pumps: dict[int, Pump] = {}
        self._end = WorkerEnd(sock, self._taken)
        self._told: dict[int, tuple[int, int]] = {}
        self._look()

    def _taken(self, kind: int, number: int, content: bytes, files: list[int]) -> None:
        if kind == CARRY and len(files) == 2:
            self._carry(number, PumpState.decode(content), *(socket.socket(fileno=file) for file in files))
        elif kind == END:
            pump = self._pumps.get(number)
            if pump is not None:  # else it has ended meanwhile, and its end is on the way
                pump.cut(Failure.decode(content))
        elif kind == RETURN:
            self._hand_back(number)
        else:
            raise ProtocolError("an unknown message to a worker")

    def _hand_back(self, number: int) -> None:
        pump = self._pumps.get(number)
        if pump is None:
            return  # it has ended meanwhile, and its end is on the way
        try:
            state = pump.hand_over()
        except ConnectionResetError:
            return  # its keys were forgotten: it ends with its next byte
        files = [os.dup(file) for file in pump.files]
        pump.moved(_Given())
        del self._pumps[number]
        self._told.pop(number, None)
        self._end.tell(BACK, number, state.encode(), files)

    def _carry(self, number: int, state: PumpState, local: socket.socket, transport: socket.socket) -> None:
        carried = pipe.resumed_pipe(transport, state.keys, state.left)
        pump = self._pumps[number] = Pump.resumed(local, carried, state)

        def ended(summary: FlowSummary) -> None:
            del self._pumps[number]
            self._told.pop(number, None)
            if summary.failure is None:
                keys, left = carried.hand_over()
                self._end.tell(ENDED, number, encode_end(summary, keys, left), [carried.sock.detach()])
            else:
                self._end.tell(ENDED, number, encode_end(summary, b"", b""))

        pump.resume(ended)

    def _look(self) -> None:
        before = time.monotonic() - self._frame_seconds
        for number, pump in list(self._pumps.items()):
            moved = pump.bytes_sent, pump.bytes_received
            if self._told.get(number) != moved:
                self._told[number] = moved
                self._end.tell(MOVED, number, _MOVED.pack(*moved))
            if not self._frame_seconds:
                continue
            if pump.incomplete_since is not None and pump.incomplete_since < before:
                pump.cut(Failure(FlowFailure.TIMED_OUT, f"a frame was not complete after {self._frame_seconds:.0f} s"))
        asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)


async def _work(file: int, frame_seconds: float) -> None:
    worker = PumpWorker(begin_worker(file), frame_seconds)
    await asyncio.get_running_loop().create_future()  # the end of the channel ends this process
    del worker


if __name__ == "__main__":
    import uvloop

    collector.settle()
    uvloop.run(_work(int(sys.argv[1]), float(sys.argv[2])))
