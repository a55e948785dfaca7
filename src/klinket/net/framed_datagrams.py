"""Datagrams as frames of a pipe: by callbacks of the loop, without a task or a future for each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from klinket.domain.errors import ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.net.pipe import SealedPipe
from klinket.net.poll import poll
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure

#: Datagrams that wait while the pipe takes no more; the oldest gives way.
MAX_WAITING = 64
#: Reads of the pipe in one turn of the loop, and frames: the smallest are thousands in one read, and others wait meanwhile.
ROUNDS = 16
MAX_FRAMES = 128


class FramedDatagrams:
    """Reads a pipe that carries one UDP flow, and writes to it. The pipe is this object's alone; close() or abort() ends both.

    `deliver`: takes each datagram; `ended`: is called once, when the other end, or an error, ends the flow. `dropped`: datagrams
    that gave way to later ones.
    """

    __slots__ = ("_closed", "_deliver", "_ended", "_goes_on", "_left", "_pipe", "_waiting", "_watches", "dropped")

    def __init__(self, pipe: SealedPipe, deliver: Callable[[bytes], None], ended: Callable[[Failure], None]) -> None:
        self._pipe = pipe
        self._deliver = deliver
        self._ended = ended
        self._watches = poll()
        self._left = b""
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._closed = False
        self._goes_on = False
        self.dropped = 0

    def start(self) -> None:
        """Begin; what was received before is delivered at once."""
        if self._pipe.closed:
            self._end(Failure(FlowFailure.RESET, "the pipe is closed"))
            return
        self._watches.add_reader(self._pipe.sock, self._readable)
        self._frames(MAX_FRAMES)

    def send(self, datagram: bytes) -> None:
        """Send one datagram; in a queue while the pipe takes no more."""
        if self._closed:
            return
        if self._left:
            self.dropped += len(self._waiting) == MAX_WAITING
            self._waiting.append(datagram)
            return
        self._write(datagram)

    def _write(self, datagram: bytes) -> None:
        try:
            frame = self._pipe.sealer.seal(FrameType.DATAGRAM, datagram)
            try:
                sent = self._pipe.sock.send(frame)
            except BlockingIOError:
                sent = 0
        except OSError as error:
            self._end(Failure(FlowFailure.RESET, str(error)))
            return
        if sent < len(frame):
            self._left = frame[sent:]
            self._watches.add_writer(self._pipe.sock, self._writable)

    def _writable(self) -> None:
        try:
            self._left = self._left[self._pipe.sock.send(self._left) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._end(Failure(FlowFailure.RESET, str(error)))
            return
        if self._left:
            return
        self._watches.remove_writer(self._pipe.sock)
        while self._waiting and not self._left and not self._closed:
            self._write(self._waiting.popleft())

    def _readable(self) -> None:
        receiver = self._pipe.receiver
        left = MAX_FRAMES
        for _ in range(ROUNDS):
            if self._closed or self._goes_on:
                return
            try:
                count = self._pipe.sock.recv_into(receiver.space())
            except (BlockingIOError, InterruptedError):
                receiver.rest()
                return
            except OSError as error:
                self._end(Failure(FlowFailure.RESET, str(error)))
                return
            if not count:
                self._end(Failure(FlowFailure.RESET, "the association is over"))
                return
            receiver.received(count)
            left = self._frames(left)

    def _go_on(self) -> None:
        self._goes_on = False
        self._frames(MAX_FRAMES)

    def _frames(self, most: int) -> int:
        """Take what is here, so many frames at the most, further ones in the next turn; returns how many fewer it took."""
        try:
            while not self._closed:
                if not most:
                    self._goes_on = True
                    self._watches.loop.call_soon(self._go_on)
                    break
                frame = self._pipe.receiver.open()
                if frame is None:
                    break
                most -= 1
                if frame.type is FrameType.DATAGRAM:
                    self._deliver(frame.content)
                elif frame.type is FrameType.FAIL:
                    self._end(Failure.decode(frame.content))
                else:
                    self._end(Failure(FlowFailure.RESET, "the association is over"))
        except ProtocolError as error:
            self._end(Failure(FlowFailure.RESET, error.message))
        return most

    def _end(self, failure: Failure) -> None:
        if not self._closed:
            self.abort()
            self._ended(failure)

    def _unwatch(self) -> None:
        self._closed = True
        if not self._pipe.closed:  # a closed socket has no number to be known by; whoever closed it had it let go
            self._watches.forget(self._pipe.sock)

    def abort(self) -> None:
        """End with a reset."""
        self._unwatch()
        self._pipe.abort()

    def close(self, failure: Failure | None = None) -> None:
        """End; `failure`: is told to the other end if that needs no waiting."""
        self._unwatch()
        if failure is not None and not self._left:
            self._pipe.send_now(FrameType.FAIL, failure.encode())
        self._pipe.close() if failure is None else self._pipe.abort()
