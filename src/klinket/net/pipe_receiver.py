"""What has come on a sealed pipe: whole frames are opened, the rest is kept until more comes."""

from __future__ import annotations

import mmap
import time
from typing import NamedTuple

from klinket.domain.errors import ProtocolError
from klinket.net.scratch import RECEIVE_BYTES, SCRATCH
from klinket.wire import pipe as wire
from klinket.wire.pipe import FrameType


class Frame(NamedTuple):
    """One frame that was received."""

    type: FrameType
    content: bytes


#: Bytes of an incomplete frame that are kept by themselves while more is waited for, instead of in a receive buffer.
SMALL_PART_BYTES = 16_384


class PipeReceiver:
    """Collects bytes of the socket and opens whole frames; holds a receive buffer only while it is needed.

    `incomplete_since`: monotonic seconds at which a frame began that is not there as a whole yet, or None.
    """

    __slots__ = ("_buffer", "_end", "_opener", "_part", "_start", "_view", "incomplete_since")

    def __init__(self, opener: wire.Opener) -> None:
        self._opener = opener
        self._buffer: mmap.mmap | None = None
        self._view: memoryview | None = None
        self._start = 0
        self._end = 0
        self._part = b""
        self.incomplete_since: float | None = None

    def forget_key(self) -> None:
        """Open nothing any more."""
        self._opener.forget()

    def hand_over(self) -> tuple[bytes, bytes]:
        """Return the opener's state and the bytes that were received and not opened; nothing is opened here any more."""
        state = self._opener.hand_over()
        self.incomplete_since = None  # whoever goes on measures anew
        left = self._part if self._view is None else bytes(self._view[self._start : self._end])
        self.release()
        return state, left

    def take_over(self, opener: wire.Opener, left: bytes) -> None:
        """Go on with what another receiver handed over; raises ProtocolError for more than it can have had."""
        if len(left) > RECEIVE_BYTES:
            raise ProtocolError(f"{len(left)} bytes were received and not opened")
        self.release()
        self._opener = opener
        self._part = left if len(left) <= SMALL_PART_BYTES else b""
        if not self._part and left:
            self.space()[: len(left)] = left
            self.received(len(left))

    def space(self) -> memoryview:
        """Return where the next bytes are to be received; never empty."""
        if self._buffer is None or self._view is None:
            self._buffer = SCRATCH.borrow()
            self._view = memoryview(self._buffer)
            self._start, self._end = 0, len(self._part)
            self._view[: self._end] = self._part
            self._part = b""
        elif self._start and RECEIVE_BYTES - self._end < wire.MAX_CONTENT_BYTES // 2:
            left = self._end - self._start
            self._view[:left] = self._view[self._start : self._end]
            self._start, self._end = 0, left
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """Note that `count` bytes were written into the last space()."""
        self._end += count

    def next_frame(self) -> memoryview | None:
        """Return the next whole sealed frame, valid until the next call, or None. Raises ProtocolError."""
        if self._view is None:
            if len(self._part) < wire.HEADER_BYTES:
                return None
            self.space()  # what was set aside may hold whole frames
        assert self._view is not None
        length = wire.frame_length(self._view[self._start : self._end])
        if length is None or self._end - self._start < length:
            if self._start != self._end and self.incomplete_since is None:
                self.incomplete_since = time.monotonic()
            self.rest()
            return None
        self.incomplete_since = None
        frame = self._view[self._start : self._start + length]
        self._start += length
        return frame

    def open_into(self, plain: memoryview) -> tuple[int, int] | None:
        """Open the next whole frame into `plain`; returns (type, length), or None when there is none."""
        frame = self.next_frame()
        return None if frame is None else self._opener.open_into(frame, plain)

    def open(self) -> Frame | None:
        """Return the next whole frame, or None."""
        frame = self.next_frame()
        return None if frame is None else Frame(*self._opener.open(frame))

    def open_only(self, data: bytes) -> Frame | None:
        """Take received bytes and return the next whole frame, or None: mostly they are just one, which needs no buffer."""
        if self._view is None and not self._part and len(data) == wire.frame_length(data):
            return Frame(*self._opener.open(data))
        self.space()[: len(data)] = data
        self.received(len(data))
        return self.open()

    def rest(self, most: int = SMALL_PART_BYTES) -> None:
        """Give the buffer back unless more is in it: a few bytes of a frame must not hold half a mebibyte."""
        if self._end - self._start <= most and self._view is not None:
            part = bytes(self._view[self._start : self._end])
            self.release()
            self._part = part

    def release(self) -> None:
        """Give the buffer back; what was in it is gone."""
        self._part = b""
        if self._buffer is not None:
            self._view = None
            SCRATCH.give_back(self._buffer)
            self._buffer = None
            self._start = self._end = 0
