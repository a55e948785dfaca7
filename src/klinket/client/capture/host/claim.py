"""One klinket per network namespace: an abstract socket, which the kernel frees when its process ends, however it ends."""

from __future__ import annotations

import os
import socket
import struct
import time

from klinket.domain.errors import CaptureImpossible

#: Abstract names belong to the network namespace, as the rules do.
NAME = b"\0klinket-capture"
#: Seconds to wait for the watcher of one that died just now.
WAIT_SECONDS = 5.0
_SO_PEERCRED_BYTES = 12


def take(wait: float = WAIT_SECONDS) -> socket.socket:
    """Return the claim; closing it frees it. Raises CaptureImpossible when another process has it. Blocks for up to `wait`."""
    deadline = time.monotonic() + wait
    while True:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(NAME)
            claim.listen(1)
            return claim
        except OSError:
            claim.close()
        if time.monotonic() >= deadline:
            raise CaptureImpossible(
                f"another klinket captures this machine already: process {_holder() or 'of another container'}",
                hint="stop it first, or use that one: two would take each other's connections",
            )
        time.sleep(0.02)


def _holder() -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.settimeout(1)
            sock.connect(NAME)
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _SO_PEERCRED_BYTES)
        except OSError:
            return 0
    pid: int = struct.unpack("iII", credentials)[0]
    return 0 if pid == os.getpid() else pid
