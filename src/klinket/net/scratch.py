"""Buffers shared by all pipes of a thread: a pipe at rest holds none."""

from __future__ import annotations

import mmap
import threading

from klinket.wire.pipe import MAX_CONTENT_BYTES, MAX_FRAME_BYTES

#: Bytes of one receive buffer: a frame, and room to read on behind it.
RECEIVE_BYTES = 2 * MAX_FRAME_BYTES
#: Receive buffers kept for reuse per thread.
MAX_SPARE = 32


class Scratch(threading.local):
    """One set per thread. `plain` and `sealed` are only valid until the next call that may use them."""

    def __init__(self) -> None:
        # Anonymous memory: only what was written to is there. A client whose command never sends much never holds it.
        self.plain = memoryview(mmap.mmap(-1, MAX_CONTENT_BYTES + 1))
        self.sealed = memoryview(mmap.mmap(-1, MAX_FRAME_BYTES))
        self.opened = memoryview(mmap.mmap(-1, RECEIVE_BYTES))
        self._spare: list[mmap.mmap] = []

    def borrow(self) -> mmap.mmap:
        """Return a receive buffer of RECEIVE_BYTES."""
        return self._spare.pop() if self._spare else mmap.mmap(-1, RECEIVE_BYTES)

    def give_back(self, buffer: mmap.mmap) -> None:
        """Take a receive buffer back; its content is ciphertext only."""
        if len(self._spare) < MAX_SPARE:
            self._spare.append(buffer)


SCRATCH = Scratch()
