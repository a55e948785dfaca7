"""The daemon in the foreground: with a stand-in for systemd, as a container's entry point, with keys replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.deployment import Deployment, Part, free_port
from tests.integration.conftest import ECHO_NAME, Loopback, dial_http
from tests.integration.daemon_commands import KLINKET, DaemonCommands

UNIT = Path(__file__).parents[2] / "packaging" / "systemd" / "klinket.service"


@pytest.fixture
def commands() -> Iterator[DaemonCommands]:
    with tempfile.TemporaryDirectory(prefix="klinket-daemon-") as directory:
        yield DaemonCommands(Path(directory))


class Foreground:
    """`klinket daemon` as a child, with capture off and an HTTP proxy."""

    def __init__(self, commands: DaemonCommands, **environment: str) -> None:
        self.proxy = ("127.0.0.1", free_port())
        self.commands = commands
        command = [*KLINKET, "daemon", "--tun", "off", "--http-proxy", f"127.0.0.1:{self.proxy[1]}"]
        self.part = Part("daemon", command, commands.log, {**commands.environment, **environment})
        self.part.start()

    def __enter__(self) -> Foreground:
        return self

    def __exit__(self, *_: object) -> None:
        self.part.stop()

    def flow(self, loopback: Loopback) -> socket.socket:
        answer, connection = dial_http(self.proxy, ECHO_NAME, loopback.echo_port)
        assert answer.startswith("HTTP/1.1 200"), answer
        loopback.echo(connection)
        return connection

    def key(self) -> str:
        return str(json.loads(self.commands.ok("status", "--json"))["key"])

    def until_key(self, path: Path) -> None:
        wanted, deadline = json.loads(path.read_text())["key_id"], time.monotonic() + 20
        while self.key() != wanted:
            assert time.monotonic() < deadline, self.part.tail()
            time.sleep(0.1)


def put_key(commands: DaemonCommands, key: Path) -> None:
    """Write a key as a mounted secret is renewed: another file under the same name."""
    commands.etc.mkdir(exist_ok=True)
    shutil.copy(key, commands.etc / ".new")
    (commands.etc / ".new").replace(commands.etc / "service_key.json")


# ---- systemd


def unit_for(path: Path) -> Path:
    """Return a copy of the unit with a program that exists."""
    copy = path / "klinket.service"
    copy.write_text(UNIT.read_text().replace("/usr/bin/klinket", KLINKET[0]))
    return copy


needs_systemd_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@needs_systemd_analyze
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(unit_for(tmp_path))], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd_analyze
def test_the_unit_is_locked_down(tmp_path: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(unit_for(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "SYSTEMD_COLORS": "0"})
    assert done.returncode == 0, done.stdout


def test_the_unit_leaves_three_capabilities() -> None:
    unit = UNIT.read_text()
    (capabilities,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    assert capabilities.split() == ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"]
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "Type=notify"):
        assert f"\n{line}\n" in unit


class Systemd:
    """The socket that systemd would give a Type=notify service."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.told: list[str] = []

    def until(self, line: str, seconds: float = 20.0) -> float:
        """Read until a line was told; return the seconds it took."""
        begun = time.monotonic()
        while not any(told == line for told in self.told):
            self.socket.settimeout(max(0.01, seconds - (time.monotonic() - begun)))
            self.told += self.socket.recv(4096).decode().splitlines()
        return time.monotonic() - begun


def test_systemd_hears_of_readiness_only_when_the_daemon_is_usable_and_that_it_lives(
    loopback: Loopback, commands: DaemonCommands, tmp_path: Path
) -> None:
    put_key(commands, loopback.key)
    systemd = Systemd(tmp_path / "notify")
    with Foreground(commands, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000") as daemon:
        systemd.until("READY=1")
        assert "STATUS=online" in systemd.told
        assert commands.ok("status") == "online\n"
        systemd.told.clear()
        systemd.until("WATCHDOG=1")
        systemd.told.clear()
        systemd.until("WATCHDOG=1")  # and again
        assert daemon.part.process is not None
        os.kill(daemon.part.pid, signal.SIGSTOP)  # a daemon that hangs is not told of as one that lives
        time.sleep(0.2)
        systemd.socket.setblocking(False)
        try:
            while systemd.socket.recv(4096):
                pass
        except BlockingIOError:
            pass
        systemd.told.clear()
        with pytest.raises(TimeoutError):
            systemd.until("WATCHDOG=1", seconds=1.5)
        os.kill(daemon.part.pid, signal.SIGCONT)
        systemd.until("WATCHDOG=1")
        os.kill(daemon.part.pid, signal.SIGTERM)
        systemd.until("STOPPING=1")
        assert daemon.part.process.wait(20) == 0


def test_a_controller_that_is_away_does_not_hold_the_machines_start(
    loopback: Loopback, commands: DaemonCommands, tmp_path: Path
) -> None:
    commands.etc.mkdir()
    away = {**json.loads(loopback.key.read_text()), "network": f"127.0.0.1:{free_port()}"}
    (commands.etc / "service_key.json").write_text(json.dumps(away))
    systemd = Systemd(tmp_path / "notify")
    with Foreground(commands, NOTIFY_SOCKET=str(tmp_path / "notify")):
        assert 10 < systemd.until("READY=1", seconds=30) < 30
        assert any(told.startswith("STATUS=offline: cannot reach the controller") for told in systemd.told)
        assert commands.ok("status") == "offline\n"
        done = commands.run("wait", "--timeout", "0.5")
        assert (done.returncode, "controller-unreachable" in done.stderr) == (74, True), done


# ---- keys


def test_a_container_needs_nothing_but_the_variable(loopback: Loopback, commands: DaemonCommands) -> None:
    with Foreground(commands, KLINKET_SERVICE_KEY=loopback.key.read_text()) as daemon:
        assert commands.ok("wait", f"{ECHO_NAME}:{loopback.echo_port}") == "online\n"
        daemon.flow(loopback).close()
        variables = Path(f"/proc/{daemon.part.pid}/environ").read_bytes()
        assert b"KLINKET_SERVICE_KEY" in variables, "what the kernel shows is for root and the daemon's own user alone"
        assert oct(Path(f"/proc/{daemon.part.pid}/environ").stat().st_mode & 0o077) == "0o0"


@pytest.mark.parametrize("how", ["setup", "SIGHUP", "a replaced file"])
def test_a_key_is_swapped_without_dropping_a_live_flow(how: str, loopback: Loopback, commands: DaemonCommands) -> None:
    put_key(commands, loopback.key)
    name = f"next-{how.replace(' ', '-')}".lower()
    following = loopback.deployment.add_key("ci", name)
    with Foreground(commands) as daemon:
        commands.until("online")
        with daemon.flow(loopback) as live:
            if how == "setup":
                assert "1 flow of the former session goes on" in commands.ok("setup", "--headless", str(following))
            else:
                put_key(commands, following)
            if how == "SIGHUP":
                os.kill(daemon.part.pid, signal.SIGHUP)
            daemon.until_key(following)
            assert commands.ok("status") == "online\n"
            loopback.echo(live, b"still there")
            daemon.flow(loopback).close()
            loopback.echo(live, b"and still")


def test_a_key_of_another_account_resets_what_the_former_one_had(loopback: Loopback, commands: DaemonCommands) -> None:
    deployment: Deployment = loopback.deployment
    deployment.admin("service", "create", "swap-other")
    deployment.admin("service", "grant", "swap-other", "Echo")
    other = deployment.add_key("swap-other", "one")
    put_key(commands, loopback.key)
    with Foreground(commands) as daemon:
        commands.until("online")
        live = daemon.flow(loopback)
        told = commands.ok("setup", "--headless", str(other))
        assert "the key is of another service account: 1 flow of the former one was reset" in told
        with pytest.raises(ConnectionResetError), live:
            assert live.recv(1) != b"", "reset, not a clean end"
        daemon.flow(loopback).close()


def test_a_half_written_key_file_leaves_the_session_as_it_is(loopback: Loopback, commands: DaemonCommands) -> None:
    put_key(commands, loopback.key)
    with Foreground(commands) as daemon:
        commands.until("online")
        with daemon.flow(loopback) as live:
            (commands.etc / "service_key.json").write_text(loopback.key.read_text()[:100])
            deadline = time.monotonic() + 10
            while "the key is not taken over" not in daemon.part.tail():
                assert time.monotonic() < deadline, daemon.part.tail()
                time.sleep(0.1)
            loopback.echo(live)
            assert commands.ok("status") == "online\n"
