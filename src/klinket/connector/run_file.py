"""The running connector's word in its state folder: its process, whether it drains, and how many flows are live.

Whoever runs holds the file's lock, and the kernel frees that however the process ends: nobody is taken for running who is not.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from klinket.domain.errors import KlinketError

logger = logging.getLogger(__name__)

_NAME = "running.json"
_MAX_BYTES = 4_096
_TRIES = 10
#: Bytes of the file, always the same.
_PADDED = 80


@dataclass(frozen=True, slots=True)
class RunState:
    """`pid`: the process; `draining`: it takes no new flows; `flows`: live ones, or at its end those that were reset."""

    pid: int
    draining: bool
    flows: int


class ConnectorAlreadyRunning(KlinketError):
    """A connector runs with this state folder: two would take each other's place for ever, and overwrite each other's cuts."""

    code = "already-running"


class RunFile:
    """Held by the connector of a state folder as long as it runs. Raises ConnectorAlreadyRunning, OSError."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._told: RunState | None = None
        try:
            self._lock(folder)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _lock(self, folder: Path) -> None:
        for _ in range(_TRIES):
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)  # whoever only looks holds it for a moment
        raise ConnectorAlreadyRunning(
            f"another connector runs with the state folder {folder}",
            hint="give each connector a --state and tokens of its own, or end the other one: klinket connector drain",
        )

    def tell(self, *, draining: bool, flows: int) -> None:
        """Say how it goes."""
        state = RunState(os.getpid(), draining, flows)
        if state == self._told:
            return
        self._told = state
        data = json.dumps({"pid": state.pid, "draining": draining, "flows": flows}).encode()
        try:
            os.pwrite(self._descriptor, data + b"\n" * (_PADDED - len(data)), 0)  # one write: nobody reads half of it
        except OSError as error:
            logger.error("the state folder does not take how it goes: %s", error.strerror)

    def close(self) -> None:
        """Give the lock back: this connector does not run any more."""
        os.close(self._descriptor)


def read(folder: Path) -> tuple[RunState | None, bool]:
    """Return what was told last in a state folder, and whether that connector still runs."""
    try:
        descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None, False
    try:
        runs = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            runs = True
        document = json.loads(os.pread(descriptor, _MAX_BYTES, 0))
        return RunState(int(document["pid"]), bool(document["draining"]), int(document["flows"])), runs
    except (ValueError, KeyError, TypeError):
        return None, False
    finally:
        os.close(descriptor)
