"""`klinket daemon`: settings, key and capture put together; signals, systemd, and a key file that is replaced."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from klinket.client import proxy_token
from klinket.client.capture.machine import MachineCapture
from klinket.client.capture.proxy import is_loopback
from klinket.client.daemon.daemon import Daemon
from klinket.client.daemon.notify import Notifier
from klinket.client.daemon.observed import Observed
from klinket.client.daemon.paths import Paths
from klinket.client.daemon.pid_file import PidFile
from klinket.client.daemon.protocol import NeedsRoot
from klinket.client.daemon.sessions import Sessions
from klinket.client.daemon.settings import Settings
from klinket.client.daemon.states import State
from klinket.client.key_source import VARIABLE, KeySource
from klinket.domain.errors import InvalidInput, KlinketError, ServiceKeyInvalid
from klinket.net import descriptors
from klinket.net.exposition import Exposition
from klinket.net.metrics_endpoint import served
from klinket.net.sockets import HostPort
from klinket.net.tasks import TaskSet
from klinket.wire.key_file import KeyFile

logger = logging.getLogger(__name__)

#: Seconds after which systemd is told that the daemon is ready although it is not usable yet: a controller that is away must not
#: end the machine's start, nor the daemon.
READY_ANYWAY_SECONDS = 15.0
#: Seconds between looks at the key file.
KEY_FILE_SECONDS = 2.0
_STEP_SECONDS = 0.05


async def run(paths: Paths, settings: Settings, stop: asyncio.Event, metrics: HostPort | None = None) -> None:
    """Serve until `stop`, and metrics at an address of loopback.

    Raises AlreadyRunning, CaptureImpossible, InvalidInput, ServiceKeyInvalid, OSError.
    """
    token = proxy_token.read(None)
    if metrics is not None and not is_loopback(metrics.host):
        raise InvalidInput("metrics", f"not an address of loopback: {metrics}", hint="for example --metrics 127.0.0.1:9466")
    settings.check(has_proxy_token=token is not None)
    descriptors.raise_limit()  # a flow takes two
    try:
        paths.make_run_folder()
    except PermissionError as error:
        raise NeedsRoot(
            f"the daemon cannot use {error.filename}: {error.strerror}",
            hint="run it as root; or --capture off, with KLINKET_RUN, KLINKET_ETC and KLINKET_STATE as folders of this user",
        ) from None
    lock = PidFile(paths.pid_file)
    tasks = TaskSet("daemon process")
    try:
        key = _first_key(paths.key_file)
        if key is None:
            raise ServiceKeyInvalid("there is no service key", hint=f"klinket setup --headless FILE, or the variable {VARIABLE}")
        daemon = Daemon(paths, settings, key, _capture(settings), lambda: _read(paths.key_file), token)
        notifier = Notifier()
        tasks.start(_pass_on(stop, daemon.stop), "stop")
        tasks.start(_tell_systemd(notifier, daemon), "systemd")
        tasks.start(_watch(paths.key_file, daemon), "key file")
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: tasks.start(_reload(daemon, "SIGHUP"), "reload"))
        observed = Observed(daemon.sessions, daemon.verdict)
        async with served(metrics, lambda: Exposition("client", observed.metrics), observed.ready):
            await daemon.run()
    finally:
        await tasks.aclose()
        lock.release()


def _capture(settings: Settings) -> Callable[[Sessions], MachineCapture] | None:
    if not settings.tun:
        return None
    from klinket.client.capture.host.capture import HostCapture
    from klinket.client.capture.host.settings import HostSettings

    def make(sessions: Sessions) -> MachineCapture:
        chosen = HostSettings(
            fast=frozenset(settings.fast),
            sources=settings.gateway_sources,
            users=settings.users,
            own_hosts=sessions.own_hosts,
        )
        return HostCapture(sessions, logger.warning, chosen)

    return make


def _first_key(path: Path) -> KeyFile | None:
    """Return the key of the variable, else of the file, or None; raises ServiceKeyInvalid."""
    if os.environ.get(VARIABLE):
        return KeySource(None).load()
    return _read(path)


def _read(path: Path) -> KeyFile | None:
    return KeySource(str(path)).load() if path.exists() else None


async def _pass_on(asked: asyncio.Event, stop: asyncio.Event) -> None:
    await asked.wait()
    stop.set()


async def _reload(daemon: Daemon, why: str) -> None:
    try:
        logger.info("%s: %s", why, await daemon.reload())
    except KlinketError as error:
        logger.error("%s: the key is not taken over: %s", why, error)


async def _watch(path: Path, daemon: Daemon) -> None:
    """Take a key over that somebody else wrote, for example a mounted secret that is renewed."""
    seen = _stamp(path)
    while True:
        await asyncio.sleep(KEY_FILE_SECONDS)
        now = _stamp(path)
        if now is not None and now != seen:
            seen = now
            await _reload(daemon, "the key file was replaced")
        seen = now


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


async def _tell_systemd(notifier: Notifier, daemon: Daemon) -> None:
    """READY=1 with the first `online`; STATUS= with each change; WATCHDOG=1 while this loop goes round."""
    loop = asyncio.get_running_loop()
    began, beat_at, ready, told = loop.time(), 0.0, False, ""
    period = notifier.watchdog_seconds
    try:
        while True:
            verdict = daemon.verdict()
            text = verdict.state.value + (f": {verdict.reason}" if verdict.reason else "")
            if text != told:
                told = text
                notifier.tell(f"STATUS={' '.join(text.split())}")
                logger.info("%s", text)
            if not ready and (verdict.state is State.ONLINE or loop.time() - began > READY_ANYWAY_SECONDS):
                ready = True
                notifier.tell("READY=1")
            if period is not None and loop.time() - beat_at >= period / 2:
                beat_at = loop.time()
                notifier.tell("WATCHDOG=1")
            await asyncio.sleep(_STEP_SECONDS if not ready else min(0.5, (period or 1.0) / 2))
    finally:
        notifier.tell("STOPPING=1")
