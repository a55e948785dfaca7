"""Buffers shared by all pipes of a thread: a pipe at rest holds none."""

from __future__ import annotations

import mmap
import threading

from klinket.wire.pipe import HEADER_BYTES, MAX_FRAME_BYTES

#: Bytes of one receive buffer: two frames, and the length of the next.
RECEIVE_BYTES = 2 * MAX_FRAME_BYTES + HEADER_BYTES
#: Receive buffers kept for reuse per thread.
MAX_SPARE = 32


class Scratch(threading.local):
    """One set per thread. `plain` and `sealed` are only valid until the next call that may use them.

    `plain` is where the content of the frame in `sealed` stands: a frame is sealed in place, which leaves half as much to go
    through the processor's caches.
    """

    def __init__(self) -> None:
        # Anonymous memory: only what was written to is there. A client whose command never sends much never holds it.
        self.sealed = memoryview(mmap.mmap(-1, MAX_FRAME_BYTES))
        self.plain = self.sealed[HEADER_BYTES:]
        self._spare: list[mmap.mmap] = []

    def borrow(self) -> mmap.mmap:
        """Return a receive buffer of RECEIVE_BYTES."""
        return self._spare.pop() if self._spare else mmap.mmap(-1, RECEIVE_BYTES)

    def give_back(self, buffer: mmap.mmap) -> None:
        """Take a receive buffer back."""
        if len(self._spare) < MAX_SPARE:
            self._spare.append(buffer)


SCRATCH = Scratch()
