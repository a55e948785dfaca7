"""A flow that may move to another process and back, and be given a bandwidth while it lives."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from klinket.net.flow_summary import FlowSummary
from klinket.net.pacing import Lanes, paced
from klinket.net.pipe import SealedPipe
from klinket.net.pump_state import Elsewhere, PumpState
from klinket.net.stream import Stream
from klinket.wire.pipe_messages import Failure

#: Is told of each flow when it begins to be carried; None: nobody wants to know. Set where a process has workers (net.carrying).
_attendant: Callable[[Pump], None] | None = None


def attend_with(attendant: Callable[[Pump], None] | None) -> None:
    """Have each pump of this process told to `attendant` at its start; None ends that."""
    global _attendant
    _attendant = attendant


class Pump(Stream):
    """A stream that other processes may carry."""

    __slots__ = ("__weakref__", "_elsewhere", "_ended_elsewhere", "_lanes")

    def __init__(self, local: socket.socket, pipe: SealedPipe, *, opening: bool = False) -> None:
        super().__init__(local, pipe, opening=opening)
        self._elsewhere: Elsewhere | None = None
        self._ended_elsewhere: Failure | None = None
        self._lanes: Lanes | None = None

    def start(self) -> asyncio.Future[FlowSummary]:
        """See Stream.start()."""
        done = super().start()
        if _attendant is not None and not self._over:
            _attendant(self)
        return done

    def begin(self) -> Awaitable[FlowSummary]:
        """As carry(), for who cuts the flow when nobody waits for it any more: it takes less memory."""
        return self.start()

    def cut(self, failure: Failure) -> None:
        """See Stream.cut(); where another process carries the flow, it is told to end it."""
        if self._elsewhere is not None and not self._over:
            self._ended_elsewhere = failure
            self._elsewhere.end(failure)
        else:
            super().cut(failure)

    @property
    def over(self) -> bool:
        """Return whether the flow has ended."""
        return self._over

    @property
    def stays(self) -> bool:
        """Return whether the flow is this process's own for now: its answer is awaited, or its bandwidth is counted here."""
        return self.opening or self._lanes is not None

    def pace(self, lanes: Lanes | None) -> None:
        """Let `local` give and take in these lanes from now on, None: as fast as it can. A flow that moved comes back."""
        if self._over or lanes is self._lanes:
            return
        self._lanes = lanes
        if self._elsewhere is None:
            self._replace_local()
        else:
            self._elsewhere.come_back()

    def _replace_local(self) -> None:
        self._watches.forget(self._local)
        self._local = paced(self._local, self._lanes, self._watches, self._local_readable, self._local_writable)
        self._watch_local()

    def _watch_local(self) -> None:
        if self._to_pipe is None and not self._local_ended:
            self._watches.add_reader(self._local, self._local_readable)
        if self._to_local is not None:
            self._watches.add_writer(self._local, self._local_writable)

    @property
    def files(self) -> tuple[int, int]:
        """Return the open files of local and pipe."""
        return self._local.fileno(), self._pipe.sock.fileno()

    def hand_over(self) -> PumpState:
        """Return all that another process needs to go on; follow with moved(), or stay(). Raises ConnectionResetError."""
        if self.stays:
            raise ConnectionResetError("the answer to OPEN is still to come, or bandwidth is counted: that is this process's")
        keys, left = self._pipe.hand_over()
        to_pipe, to_local = (b"" if waiting is None else bytes(waiting) for waiting in (self._to_pipe, self._to_local))
        ended = self._local_ended, self._pipe_ended
        return PumpState(keys, left, to_pipe, to_local, *ended, self.bytes_sent, self.bytes_received)

    def stay(self, state: PumpState) -> None:
        """Go on here after all: no other process has got the state."""
        self._pipe.take_over(self._pipe.sock, state.keys, state.left)

    def moved(self, elsewhere: Elsewhere) -> None:
        """Note that another process carries the flow now, and close the files here."""
        self._elsewhere = elsewhere
        self._unwatch()
        self._to_pipe = self._to_local = None
        self._local.close()
        self._pipe.sock.close()

    def ended_elsewhere(self, summary: FlowSummary, pipe: tuple[socket.socket, bytes, bytes] | None) -> None:
        """Note how the flow has ended there. `pipe`: socket, keys and bytes of the pipe, for the next flow."""
        self._over = True
        self.bytes_sent, self.bytes_received = summary.bytes_sent, summary.bytes_received
        if pipe is None:
            self._pipe.abort()
        elif self._pipe.closed or self._done.done():
            pipe[0].close()
        else:
            self._pipe.take_over(*pipe)
        if not self._done.done():
            self._done.set_result(summary)

    def came_back(self, local: socket.socket, pipe: socket.socket, state: PumpState) -> None:
        """Go on here with what another process has handed back."""
        self._elsewhere = None
        if self._pipe.closed or self._done.done():
            self._over = True
            local.close()
            pipe.close()
            return
        self._local = local
        self._pipe.take_over(pipe, state.keys, state.left)
        self._take(state)
        if self._ended_elsewhere is not None:
            self.cut(self._ended_elsewhere)
            return
        if self._lanes is not None:
            self._replace_local()
        self._go_on()
        if _attendant is not None and not self._over:
            _attendant(self)

    def _take(self, state: PumpState) -> None:
        self._to_pipe = memoryview(state.to_pipe) if state.to_pipe else None
        self._to_local = memoryview(state.to_local) if state.to_local else None
        self._local_ended, self._pipe_ended = state.local_ended, state.pipe_ended
        self.bytes_sent, self.bytes_received = state.bytes_sent, state.bytes_received

    @classmethod
    def resumed(cls, local: socket.socket, pipe: SealedPipe, state: PumpState) -> Pump:
        """Return a pump that goes on in this process; begin with resume(). The end of this process resets both sides."""
        made = cls(local, pipe)
        made._take(state)
        return made

    def resume(self, ended: Callable[[FlowSummary], None]) -> None:
        """Go on; `ended` is called once, by the loop."""
        self._done.add_done_callback(lambda done: ended(done.result()))
        self._go_on()

    def _go_on(self) -> None:
        self._watch_local()
        if self._to_pipe is not None:
            self._watches.add_writer(self._pipe.sock, self._pipe_writable)
        if self._to_local is None:
            self._watches.add_reader(self._pipe.sock, self._pipe_readable)
            self._drain()
        if not self._over and self._looks:
            self._look_later()
