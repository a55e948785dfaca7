"""The hot loop: a program's or resource's socket on one side, a sealed pipe on the other.

Raw sockets on the loop's readers and writers, one frame per read, shared buffers; bytes are copied only under back-pressure.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from klinket.domain.errors import ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.net import sockets
from klinket.net.flow_summary import FlowSummary
from klinket.net.pipe import SealedPipe
from klinket.net.poll import poll
from klinket.net.scratch import SCRATCH
from klinket.wire.pipe import MAX_CONTENT_BYTES, FrameType
from klinket.wire.pipe_messages import Failure, OpenAnswer

#: Seconds between looks at a side that is not read from, as it has ended or the other takes nothing: its reset must not wait.
LOOK_SECONDS = 1.0
#: Bytes a flow has received when it is worth a look how far away its peer is.
BULK_BYTES = 1 << 20
#: Frames whose contents are sent to the local side by one call.
TOGETHER = 64
#: Frames opened in one turn of the loop: the smallest are tens of thousands in one read, and others wait meanwhile.
MAX_FRAMES = 256


def _nothing() -> None:
    """Nobody wants to know."""


class Stream:
    """One flow's bytes. `carry()` moves them; `cut()` ends it from outside, at once.

    `opening`: OPEN went out and its answer is still to come; what `local` sends meanwhile follows it without waiting.
    `opened`: called when it has come, and is no refusal.
    """

    __slots__ = (
        "_done", "_draining", "_local", "_local_ended", "_looking", "_over", "_pipe", "_pipe_ended", "_to_local", "_to_pipe",
        "_watches", "bytes_received", "bytes_sent", "opened", "opening",
    )  # fmt: skip

    def __init__(self, local: socket.socket, pipe: SealedPipe, *, opening: bool = False) -> None:
        self.opening = opening
        self.opened: Callable[[], None] = _nothing
        self._local = local
        self._pipe = pipe
        self._watches = poll()
        self._done: asyncio.Future[FlowSummary] = self._watches.loop.create_future()
        self._to_pipe: memoryview | None = None  # sealed bytes the pipe has not taken yet
        self._to_local: memoryview | None = None  # content that local has not taken yet
        self._local_ended = False
        self._pipe_ended = False
        self._looking: asyncio.TimerHandle | None = None
        self._draining: asyncio.Handle | None = None  # frames that are here go on being opened in the next turn
        self._over = False  # not told by the future: whoever waits for it may cancel it while the sockets are still watched
        self.bytes_sent = 0
        self.bytes_received = 0

    async def carry(self) -> FlowSummary:
        """Move bytes between `local` and the pipe until both have ended; closes `local`.

        After a clean end (`failure` None) the pipe may carry another flow. Otherwise `local` and the pipe were reset.
        Cancelling resets both.
        """
        try:
            return await self.start()
        except asyncio.CancelledError:
            self.cut(Failure(FlowFailure.RESET))
            raise

    def start(self) -> asyncio.Future[FlowSummary]:
        """Begin; the future holds the summary when the flow has ended. Cancelling it does not end the flow: use carry()."""
        if self._pipe.closed:
            self._pipe_broke()
            return self._done
        sockets.reset_if_dropped(self._local, True)
        sockets.keep_urgent(self._local)
        self._watches.add_reader(self._local, self._local_readable)
        self._watches.add_reader(self._pipe.sock, self._pipe_readable)
        self._drain()  # frames that came together with OPEN or OPENED are here already
        return self._done

    def cut(self, failure: Failure) -> None:
        """Reset both sides now; the peer is told why where that needs no waiting."""
        if not self._over:
            if self._to_pipe is None and not self._local_ended:
                try:
                    self._pipe.sock.send(self._pipe.sealer.seal(FrameType.FAIL, failure.encode()))
                except OSError:
                    pass
            self._finish(failure)

    @property
    def incomplete_since(self) -> float | None:
        """Return the monotonic seconds at which a frame of the pipe began that is not whole yet, or None."""
        return None if self._over else self._pipe.receiver.incomplete_since

    # ---- local -> pipe

    def _local_readable(self) -> None:
        plain, sealed = SCRATCH.plain, SCRATCH.sealed
        try:
            count = self._local.recv_into(plain, MAX_CONTENT_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.cut(Failure(FlowFailure.RESET, "the connection was reset"))
            return
        try:
            if count:
                self.bytes_sent += count
                length = self._pipe.sealer.seal_into(FrameType.DATA, plain, count, sealed)
            else:
                self._local_ended = True
                self._watches.remove_reader(self._local)
                self._look_later()
                length = self._pipe.sealer.seal_into(FrameType.FIN, plain, 0, sealed)
        except ConnectionResetError:  # the keys were forgotten
            self._pipe_broke()
            return
        self._send_sealed(sealed[:length])

    def _send_sealed(self, data: memoryview) -> None:
        try:
            sent = self._pipe.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._pipe_broke()
            return
        if sent < len(data):
            self._to_pipe = memoryview(bytes(data[sent:]))
            if not self._local_ended:
                self._watches.remove_reader(self._local)
            self._watches.add_writer(self._pipe.sock, self._pipe_writable)
            self._look_later()
        elif self._local_ended:
            self._check_end()

    def _pipe_writable(self) -> None:
        assert self._to_pipe is not None
        try:
            sent = self._pipe.sock.send(self._to_pipe)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._pipe_broke()
            return
        if sent < len(self._to_pipe):
            self._to_pipe = self._to_pipe[sent:]
            return
        self._to_pipe = None
        self._watches.remove_writer(self._pipe.sock)
        if self._local_ended:
            self._check_end()
        else:
            self._watches.add_reader(self._local, self._local_readable)

    # ---- pipe -> local

    def _pipe_readable(self) -> None:
        if self._draining is not None:
            return
        receiver = self._pipe.receiver
        try:
            count = self._pipe.sock.recv_into(receiver.space())
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        if not count:
            self._pipe_broke()
            return
        receiver.received(count)
        self._drain()

    def _drain_on(self) -> None:
        self._draining = None
        self._drain()

    def _drain(self) -> None:
        """Open every whole frame that is here, until local does not take more; many of them in several turns."""
        receiver, left = self._pipe.receiver, MAX_FRAMES
        try:
            while not self._over and self._to_local is None:
                if not left:
                    if self._draining is None:
                        self._draining = self._watches.loop.call_soon(self._drain_on)
                    return
                contents: list[memoryview] = []
                frame: tuple[int, memoryview] | None = None
                while left and len(contents) < TOGETHER:
                    left -= 1
                    frame = receiver.open_in_place()
                    if frame is None:
                        break
                    if frame[0] != FrameType.DATA:
                        break
                    if self._pipe_ended or self.opening:
                        raise ProtocolError("DATA before OPENED" if self.opening else "DATA after FIN")
                    contents.append(frame[1])
                if contents and not self._send_contents(contents):
                    return
                if frame is None:
                    return
                if frame[0] != FrameType.DATA:
                    self._other_frame(frame[0], bytes(frame[1]))
                    if self._pipe_ended:
                        return
        except ProtocolError as error:
            self._finish(Failure(FlowFailure.RESET, error.message))

    def _other_frame(self, type: int, content: bytes) -> None:
        if self.opening and type == FrameType.OPENED:
            OpenAnswer.decode(content)
            self.opening = False
            self.opened()
        elif type == FrameType.FIN and not self._pipe_ended and not self.opening and not content:
            self._pipe_ended = True
            if self._to_local is None:
                self._finish_local()
        elif type == FrameType.FAIL:
            self._finish(Failure.decode(content))
        else:
            raise ProtocolError(f"frame {type} inside a flow")

    def _send_contents(self, contents: list[memoryview]) -> bool:
        """Send to local; False when the flow is over."""
        size = sum(map(len, contents))
        if self.bytes_received < BULK_BYTES <= self.bytes_received + size:
            sockets.narrow_if_near(self._pipe.sock)
        self.bytes_received += size
        try:
            sent = self._local.send(contents[0]) if len(contents) == 1 else self._local.sendmsg(contents)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.cut(Failure(FlowFailure.RESET, "the connection was reset"))
            return False
        if sent < size:
            left = b"".join(contents) if len(contents) > 1 else contents[0]
            self._to_local = memoryview(bytes(left[sent:]))
            self._pipe.receiver.incomplete_since = None  # it is not read on: what is not whole is not the peer's delay
            self._watches.remove_reader(self._pipe.sock)
            self._watches.add_writer(self._local, self._local_writable)
            self._look_later()
        return True

    def _local_writable(self) -> None:
        assert self._to_local is not None
        try:
            sent = self._local.send(self._to_local)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.cut(Failure(FlowFailure.RESET, "the connection was reset"))
            return
        if sent < len(self._to_local):
            self._to_local = self._to_local[sent:]
            return
        self._to_local = None
        self._watches.remove_writer(self._local)
        if self._pipe_ended:
            self._finish_local()
            return
        self._watches.add_reader(self._pipe.sock, self._pipe_readable)
        self._drain()

    # ---- resets of what is not read from

    @property
    def _looks(self) -> bool:
        return self._to_pipe is not None or self._to_local is not None or self._local_ended

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = self._watches.loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """See whether a side that is not read from was reset meanwhile."""
        self._looking = None
        if self._over or not self._looks:
            return
        if (self._to_pipe is not None or self._local_ended) and sockets.was_reset(self._local):
            self.cut(Failure(FlowFailure.RESET, "the connection was reset"))
        elif self._to_local is not None and sockets.was_reset(self._pipe.sock):
            self._pipe_broke()
        else:
            self._look_later()

    # ---- ends

    def _finish_local(self) -> None:
        """Everything of the peer is delivered: pass its end of stream on."""
        try:
            self._local.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the program has gone; its own end arrives as a read
        self._check_end()

    def _check_end(self) -> None:
        if self._local_ended and self._pipe_ended and self._to_pipe is None and self._to_local is None:
            self._finish(None)

    def _pipe_broke(self) -> None:
        # An end without FIN is a reset, never a clean end: the peer's last bytes may be missing.
        self._finish(Failure(FlowFailure.RESET, "the pipe ended early"))

    def _unwatch(self) -> None:
        self._stop_looking()
        for sock in (self._local, self._pipe.sock):
            self._watches.forget(sock)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None

    def _finish(self, failure: Failure | None) -> None:
        if self._over:
            return
        self._over = True
        self._stop_looking()
        self._watches.forget(self._local)
        if self._pipe.sock.fileno() >= 0:
            self._watches.remove_reader(self._pipe.sock)
            self._watches.remove_writer(self._pipe.sock)
        if failure is None:
            sockets.reset_if_dropped(self._local, False)
            self._local.close()
        else:
            sockets.reset(self._local)
            self._pipe.abort()
        self._to_pipe = self._to_local = None
        if not self._done.done():
            self._done.set_result(FlowSummary(self.bytes_sent, self.bytes_received, failure))
