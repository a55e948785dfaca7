"""One daemon at a time: a lock on a file beside the pid file, which the kernel takes back however the daemon ends.

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
_MAX_PID_CHARACTERS = 12


class AlreadyRunning(KlinketError):
    """Another daemon holds the pid file, or another client has this machine's traffic."""

    code = "already-running"
    default_hint = "klinket status -v tells of it; klinket stop ends it"


class PidFile:
    """The lock of this process, from `PidFile(path)` to `release()`. Raises AlreadyRunning, OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(_lock(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise AlreadyRunning(f"a klinket daemon is running already{_told(holder(path))}") from None
        self._write(f"{os.getpid()}\n")

    def _write(self, text: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w") as file:
            os.fchmod(descriptor, 0o644)  # whatever the umask: every user may ask which process it is
            file.write(text)

    def release(self) -> None:
        """Let another daemon start. The files stay: removing them would let two daemons lock two files of one name."""
        self._write("")
        os.close(self._descriptor)


def holder(path: Path) -> int | None:
    """Return the pid of the daemon that runs (0: in another pid namespace), or None.

    Who may not open the lock gets the pid that the daemon has written, if that process lives.
    """
    try:
        descriptor = os.open(_lock(path), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except PermissionError:
        return _written(path)
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else max(0, pid)


def _written(path: Path) -> int | None:
    try:
        pid = int(path.read_text()[:_MAX_PID_CHARACTERS])
        os.kill(pid, 0)
    except PermissionError:
        return pid  # another user's, as it should be
    except (OSError, ValueError, OverflowError):
        return None
    return pid


def _lock(path: Path) -> Path:
    """Return the file that is locked, for its owner alone: a lock needs no more than a file that can be opened to read."""
    return path.with_suffix(".lock")


def _told(pid: int | None) -> str:
    return f" (process {pid})" if pid else ""
