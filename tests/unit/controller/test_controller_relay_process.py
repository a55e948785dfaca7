"""The relay beside the controller: kept running, taken over from an earlier controller, ended with this one."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples.deployment import free_port
from klinket.controller import relay_process
from klinket.controller.app import relays
from klinket.controller.relay_process import RelayProcess
from klinket.net.backoff import Backoff
from klinket.net.sockets import HostPort
from klinket.net.tasks import TaskSet
from tests.eventually import PATIENCE, eventually
from tests.unit.controller.running import Running

#: Listens where `--listen` says, and ends when it is told to.
STAND_IN = """
import signal, socket, sys
host, _, port = sys.argv[sys.argv.index("--listen") + 1].rpartition(":")
server = socket.create_server((host, int(port)))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    server.accept()[0].close()
"""


class Process(RelayProcess):
    """Starts a stand-in, with the arguments a relay gets."""

    command: list[str] | None = None

    def _command(self) -> list[str]:
        return self.command or [sys.executable, "-S", "-c", STAND_IN, *super()._command()[3:]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_process, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(relay_process, "Backoff", lambda *_: Backoff(0.01, 0.02))


@pytest.fixture
async def beside(controller: Running) -> AsyncIterator[Process]:
    address = HostPort("127.0.0.1", free_port())
    made = Process(controller.config, address, address, os.urandom)
    await made.prepare(controller.store)
    yield made
    made._end()


def pid_of(controller: Running) -> int:
    try:
        return int((controller.config.state / "relay" / "relay.pid").read_text())
    except (OSError, ValueError):
        return 0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listens(beside: Process) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((beside._listen.host, beside._listen.port)) == 0


async def test_the_relays_token_is_private_valid_and_made_once(controller: Running, beside: Process) -> None:
    path = controller.config.state / "relay" / "token"
    token = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert (await controller.read(lambda tx: relays.by_token(tx, token))).name == relay_process.NAME
    await beside.prepare(controller.store)
    assert path.read_text() == token
    path.unlink()
    await beside.prepare(controller.store)
    assert path.read_text() != token
    assert [one.name for one in path.parent.iterdir()] == ["token"]


async def test_the_token_is_in_no_argument(beside: Process) -> None:
    assert beside._token_file.read_text() not in " ".join(beside._command())


async def test_the_relay_does_not_take_the_address_of_the_controllers_metrics(
    controller: Running, beside: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLINKET_METRICS", "127.0.0.1:9464")
    tasks = TaskSet("test")
    tasks.start(beside.run(), "relay")
    await eventually(lambda: listens(beside))
    environment = Path(f"/proc/{pid_of(controller)}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"KLINKET_METRICS" not in environment
    await tasks.aclose()


async def test_a_relay_that_ends_is_started_again(controller: Running, beside: Process) -> None:
    tasks = TaskSet("test")
    tasks.start(beside.run(), "relay")
    await eventually(lambda: listens(beside))
    first = pid_of(controller)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: pid_of(controller) not in (0, first) and listens(beside))
    await tasks.aclose()
    await eventually(lambda: not listens(beside))


async def test_a_relay_that_cannot_be_started_is_tried_again(
    controller: Running, beside: Process, caplog: pytest.LogCaptureFixture
) -> None:
    beside.command = ["/nowhere/relay"]
    tasks = TaskSet("test")
    tasks.start(beside.run(), "relay")
    await eventually(lambda: caplog.text.count("could not be started") >= 2)
    beside.command = None
    await eventually(lambda: listens(beside))
    await tasks.aclose()


async def test_a_relay_that_an_earlier_controller_left_is_kept_and_ended_with_this_one(
    controller: Running, beside: Process, caplog: pytest.LogCaptureFixture
) -> None:
    left = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", STAND_IN, "relay", "--listen", str(beside._listen))
    (controller.config.state / "relay" / "relay.pid").write_text(str(left.pid))
    await eventually(lambda: listens(beside))
    tasks = TaskSet("test")
    tasks.start(beside.run(), "relay")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(left.wait(), 0.3)
    assert pid_of(controller) == left.pid
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    await tasks.aclose()
    assert await asyncio.wait_for(left.wait(), PATIENCE) == 0


async def test_another_program_on_the_relays_port_is_told_and_waited_out(
    controller: Running, beside: Process, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", STAND_IN, "--listen", str(beside._listen))
    await eventually(lambda: listens(beside))
    tasks = TaskSet("test")
    tasks.start(beside.run(), "relay")
    await eventually(lambda: "another program listens" in caplog.text)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(foreign.wait(), 0.3)
    assert caplog.text.count("another program listens") == 1
    foreign.kill()
    await foreign.wait()
    await eventually(lambda: pid_of(controller) and listens(beside))
    await tasks.aclose()


async def test_a_process_that_is_no_relay_any_more_is_left_alone(controller: Running, beside: Process) -> None:
    """The system gives process ids again."""
    other = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", "import time; time.sleep(60)")
    (controller.config.state / "relay" / "relay.pid").write_text(str(other.pid))
    beside._end()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.wait(), 0.2)
    assert is_alive(other.pid)
    other.kill()
    await other.wait()
