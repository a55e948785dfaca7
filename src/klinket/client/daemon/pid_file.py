"""One daemon at a time: a lock on the pid file, which the kernel takes back however the daemon ends.

A record lock (fcntl) and not flock: children of the daemon do not hold it, and the kernel tells whose it is.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from klinket.domain.errors import KlinketError

#: struct flock: type, whence, start, length, pid.
_FLOCK = "hhlli"


class AlreadyRunning(KlinketError):
    """Another daemon holds the pid file, or another client has this machine's traffic."""

    code = "already-running"
    default_hint = "klinket status -v tells of it; klinket stop ends it"


class PidFile:
    """The lock of this process, from `PidFile(path)` to `release()`. Raises AlreadyRunning, OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise AlreadyRunning(f"a klinket daemon is running already{_told(holder(path))}") from None
        os.fchmod(self._descriptor, 0o644)  # whatever the umask: every user may ask who holds it
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another daemon start. The file stays: removing it would let two daemons lock two files of one name."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def holder(path: Path) -> int | None:
    """Return the pid of the daemon that runs (0: in another pid namespace), or None; any user may ask."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else max(0, pid)


def _told(pid: int | None) -> str:
    return f" (process {pid})" if pid else ""
