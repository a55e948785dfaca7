"""klinket's side of the watcher: starts it, starts another when it dies, tells it when it is not needed any more."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from klinket.client.capture.host import routes, watcher

logger = logging.getLogger(__name__)

#: Seconds between a watcher's end and the next one.
RESTART_SECONDS = 1.0
_END_SECONDS = 5.0


class Watcher:
    """The will is executed if this process ends without aclose()."""

    def __init__(self, commands: Sequence[tuple[Sequence[str], str]]) -> None:
        will = {"claim": routes.LINK, "commands": [[list(arguments), text] for arguments, text in commands]}
        self._will = json.dumps(will).encode() + b"\n"
        self._process: subprocess.Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Return the process that watches, if it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start watching; raises OSError."""
        self._spawn()
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="watcher")

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            # Isolated and without site packages: nothing of the environment, and 10 ms to start.
            [sys.executable, "-I", "-S", str(Path(watcher.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._will)
        self._process.stdin.flush()

    async def _keep(self) -> None:
        while True:
            if self.pid is not None:
                await _ended(self.pid)
            if self._process is not None:
                logger.warning("the watcher ended (%d): starting another", self._process.wait())
                self._process = None
            await asyncio.sleep(RESTART_SECONDS)
            try:
                self._spawn()
            except OSError as error:
                logger.error("the watcher: %s", error)

    async def aclose(self) -> None:
        """Tell the watcher that everything is cleaned up, and wait for its end."""
        if self._task is not None:
            self._task.cancel()
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(b"done\n")
            self._process.stdin.close()
        except OSError:
            pass  # it is gone
        try:
            await asyncio.to_thread(self._process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()


async def _ended(pid: int) -> None:
    """Return when a child has ended."""
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(pid)
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: None if ended.done() else ended.set_result(None))
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
