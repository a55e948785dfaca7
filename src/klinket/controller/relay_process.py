"""The relay beside the controller (`--with-relay`): a process of its own, so that pairs outlive the controller."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from klinket.controller.app import relays
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.config import ControllerConfig
from klinket.domain.audit import SYSTEM
from klinket.net.backoff import Backoff
from klinket.net.files import replace_private
from klinket.net.sockets import HostPort

logger = logging.getLogger(__name__)

NAME = "beside-the-controller"
#: Seconds between looks whether a relay left by an earlier controller is still there.
LOOK_SECONDS = 1.0
#: Seconds between complaints that another program has the relay's port.
TELL_SECONDS = 60.0


def _environment() -> dict[str, str]:
    """Return the environment of the relay: the address of metrics in it is the controller's own."""
    return {name: value for name, value in os.environ.items() if name != "KLINKET_METRICS"}


class RelayProcess:
    """Keeps `klinket relay` running. One that an earlier controller left behind is kept: it holds live pairs."""

    def __init__(self, config: ControllerConfig, address: HostPort, listen: HostPort, entropy: Callable[[int], bytes]) -> None:
        self._config = config
        self._address = address
        self._listen = listen
        self._entropy = entropy
        self._folder = config.state / "relay"
        self._process: asyncio.subprocess.Process | None = None

    async def prepare(self, store: Store) -> None:
        """Make the relay's token, once; it rests in a 0600 file of the state folder."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

        def known(tx: Transaction) -> bool:
            return bool(tx.relays.find(name=NAME))

        if self._token_file.exists() and await store.read(known):
            return
        _, token = await store.write(lambda tx: relays.create_or_replace(tx, SYSTEM, name=NAME, entropy=self._entropy))
        replace_private(self._token_file, token.encode())

    @property
    def _token_file(self) -> Path:
        return self._folder / "token"

    @property
    def _pid_file(self) -> Path:
        return self._folder / "relay.pid"

    async def run(self) -> None:
        """Keep the relay running until cancelled; then it is ended as well."""
        backoff = Backoff(0.2, 10.0)
        try:
            while True:
                await self._wait_for_the_port()
                began = asyncio.get_running_loop().time()
                try:
                    self._process = await asyncio.create_subprocess_exec(
                        *self._command(), stdin=asyncio.subprocess.DEVNULL, start_new_session=False, env=_environment()
                    )
                    self._pid_file.write_text(str(self._process.pid))
                    how = f"ended with {await self._process.wait()}"
                except OSError as error:
                    how = f"could not be started: {error.strerror}"
                if asyncio.get_running_loop().time() - began > 30:
                    backoff.reset()
                delay = backoff.next()
                logger.error("the relay %s; starting it again in %.1f s", how, delay)
                await asyncio.sleep(delay)
        finally:
            self._end()

    async def _wait_for_the_port(self) -> None:
        """Wait while a relay that an earlier controller left behind serves there; say so if it is another program."""
        told_at: float | None = None
        while await self._answers():
            now = asyncio.get_running_loop().time()
            if self._left_behind() is None and (told_at is None or now - told_at >= TELL_SECONDS):
                told_at = now
                logger.error(
                    "another program listens on %s: the relay cannot; end it, or give another --relay-listen", self._listen
                )
            await asyncio.sleep(LOOK_SECONDS)

    def _left_behind(self) -> int | None:
        """Return the process id of the relay that was started last, if it is alive."""
        try:
            pid = int(self._pid_file.read_text())
            return pid if "relay" in Path(f"/proc/{pid}/cmdline").read_text().split("\0") else None
        except (OSError, ValueError):
            return None

    def _end(self) -> None:
        """End the relay, also one that was left behind, when the controller is stopped on purpose."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            return
        pid = self._left_behind()
        if pid is not None:
            try:
                os.kill(pid, signal.SIGTERM)
            except OSError:
                pass  # it has ended by itself

    async def _answers(self) -> bool:
        host = "127.0.0.1" if self._listen.host in ("0.0.0.0", "::") else self._listen.host  # noqa: S104 - compared only
        try:
            async with asyncio.timeout(2):
                _, writer = await asyncio.open_connection(host, self._listen.port)
            writer.close()
        except OSError:
            return False
        return True

    def _command(self) -> list[str]:
        command = [
            sys.executable, "-P", "-m", "klinket", "relay",
            "--controller", self._config.public_url,
            "--listen", str(self._listen),
            "--advertise", str(self._address),
            "--token-file", str(self._token_file),
            "--state", str(self._folder),
            "--drain-seconds", "0",
        ]  # fmt: skip
        if self._config.certificate is None:
            command += ["--ca", str(self._config.authority_file)]
        return command
