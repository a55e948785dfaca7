"""Which flows of a process are carried by its workers: those that move much, and the oldest where it has very many.

Opening, deciding and ending stay here. A flow that is short, or one of few, is never moved.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from klinket.domain.errors import ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.net import descriptors, pump_worker, workers
from klinket.net.flow_summary import FlowSummary
from klinket.net.pipe import forget_with
from klinket.net.pump import Pump, attend_with
from klinket.net.pump_state import KEYS_BYTES, PumpState
from klinket.net.workers import LOOK_SECONDS, Handle, Program, WorkerPool, give_away
from klinket.wire.pipe_messages import Failure

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Flows for which a process that has very many leaves files free before it gives the oldest away: for what is being opened, and
#: pipes that wait. Where it can open few files, for half of the flows.
FREE_FOR_FLOWS = 2_500


class _Given:
    """A flow that a worker has. Implements workers.Item."""

    __slots__ = ("_pump",)

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def told(self, kind: int, content: bytes, files: list[int]) -> bool:
        if kind == pump_worker.MOVED:
            try:
                self._pump.bytes_sent, self._pump.bytes_received = pump_worker.decode_moved(content)
            except ProtocolError as error:
                logger.error("a worker: %s", error.message)
            for file in files:
                os.close(file)
            return False
        if kind == pump_worker.BACK and len(files) == 2:
            local, pipe_sock = (socket.socket(fileno=file) for file in files)
            files.clear()
            self._pump.came_back(local, pipe_sock, PumpState.decode(content))
            return True
        try:
            summary, rest = pump_worker.decode_end(content)
        except ProtocolError:
            summary, rest = FlowSummary(self._pump.bytes_sent, self._pump.bytes_received, _LOST), b""
        pipe = None
        if files and rest and kind == pump_worker.ENDED:
            pipe = socket.socket(fileno=files.pop()), rest[:KEYS_BYTES], rest[KEYS_BYTES:]
        for file in files:
            os.close(file)
        self._pump.ended_elsewhere(summary, pipe)
        return True

    def lost(self) -> None:
        self._pump.ended_elsewhere(FlowSummary(self._pump.bytes_sent, self._pump.bytes_received, _LOST), None)


_LOST = Failure(FlowFailure.RESET, "the process that carried the flow has ended")


class Carrying:
    """The flows of this process and its workers. Make it in the loop."""

    def __init__(self, program: Program, processes: int) -> None:
        each = (descriptors.raise_limit() - workers.SPARE_DESCRIPTORS) // 2
        self.pool = WorkerPool(program, processes, each)
        self._kept = max(each // 2, each - FREE_FOR_FLOWS)
        self._here: dict[Pump, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        attend_with(self._attend)

    def _attend(self, pump: Pump) -> None:
        self._here[pump] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        self.pool.look()
        self._here = {pump: None for pump in self._here if not pump.over}
        moving = [pump for pump in self._here if not pump.stays]
        give_away(moving, _moved, self._kept, lambda pump, busy: self.give(pump, busy=busy), started=self.pool.started)
        if self._here or any(self.pool.sizes):
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def give(self, pump: Pump, *, busy: bool = True) -> bool:
        """Give a flow to a worker; False when none takes it now."""
        try:
            state = pump.hand_over()
        except ConnectionResetError:
            return True  # its keys were forgotten, so it ends with its next byte; or it stays
        handle = self.pool.give(pump_worker.CARRY, state.encode(), pump.files, _Given(pump), busy=busy)
        if handle is None:
            pump.stay(state)
            return False
        del self._here[pump]
        pump.moved(_There(handle))
        return True

    def close(self) -> None:
        """Carry everything that begins from now on here; flows of workers are reset."""
        attend_with(None)
        if self._timer is not None:
            self._timer.cancel()
        self.pool.kill_all()


def _moved(pump: Pump) -> int:
    return pump.bytes_sent + pump.bytes_received


class _There:
    """A worker, for one flow. Implements pump_state.Elsewhere."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def end(self, failure: Failure) -> None:
        self._handle.end(pump_worker.END, failure.encode())

    def come_back(self) -> None:
        self._handle.tell(pump_worker.RETURN)


_carrying: Carrying | None = None


def capacity() -> int:
    """Return how many flows workers can carry beyond those of this process itself."""
    return 0 if _carrying is None else _carrying.pool.capacity


def settle() -> None:
    """Return when every flow that was cut has ended, also at a worker: at most workers.CONFIRM_SECONDS and a little later."""
    if _carrying is not None:
        _carrying.pool.settle()


def _forget_all_keys() -> None:
    if _carrying is not None:
        _carrying.pool.kill_all()


forget_with(_forget_all_keys)


def with_workers(
    main: Callable[[asyncio.Event], Awaitable[T]], processes: int | None, frame_seconds: float = 0.0
) -> Callable[[asyncio.Event], Awaitable[T]]:
    """Return `main` with workers that carry flows of this process meanwhile.

    `processes`: how many share that, None: as many as cores, 1: none beside this one. `frame_seconds`: see PumpWorker.
    """
    count = workers.default_processes() if processes is None else processes

    async def run(stop: asyncio.Event) -> T:
        global _carrying
        if count <= 1 or not workers.there_are():
            return await main(stop)
        _carrying = Carrying(Program(pump_worker.__name__, str(frame_seconds)), count)
        try:
            return await main(stop)
        finally:
            _carrying.close()
            _carrying = None

    return run
