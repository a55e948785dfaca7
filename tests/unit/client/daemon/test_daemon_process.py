"""The daemon as a process: its lock, systemd's socket, the machine's capture, and what a report leaves out."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from klinket.client.capture.machine import CaptureState
from klinket.client.daemon import diagnostics, lifecycle, machine, pid_file, settings
from klinket.client.daemon.machine import Machine
from klinket.client.daemon.notify import Notifier
from klinket.client.daemon.paths import Paths
from klinket.client.daemon.pid_file import AlreadyRunning, PidFile
from klinket.client.daemon.protocol import ResourceRow, StatusReport
from klinket.client.daemon.shown import resource_table, verbose_status
from klinket.domain import token_text
from klinket.domain.errors import CaptureImpossible
from klinket.domain.resource import Resource
from klinket.net.files import replace_private
from tests.eventually import eventually
from tests.unit.client.conftest import granted


def test_the_folders_can_be_moved() -> None:
    assert Paths.from_environment({}).key_file == Path("/etc/klinket/service_key.json")
    assert not Paths.from_environment({}).moved
    moved = Paths.from_environment({"KLINKET_ETC": "/e", "KLINKET_RUN": "/r", "KLINKET_STATE": "/s", "KLINKET_LOG": "/l"})
    assert (moved.key_file, moved.socket, moved.state, moved.log, moved.moved) == (
        Path("/e/service_key.json"),
        Path("/r/control.sock"),
        Path("/s"),
        Path("/l"),
        True,
    )


def test_a_lock_tells_who_holds_it_and_a_child_of_the_holder_does_not_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "klinket.pid"
    assert pid_file.holder(path) is None
    told, tell = os.pipe()
    end, ended = os.pipe()
    holder = os.fork()
    if holder == 0:
        PidFile(path)
        if os.fork() == 0:  # what outlives a daemon, such as one that restores DNS
            os.close(ended)
            os.read(end, 1)
            os._exit(0)
        os.write(tell, b"x")
        os._exit(0)
    os.read(told, 1)
    os.waitpid(holder, 0)
    assert pid_file.holder(path) is None
    lock = PidFile(path)
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()
    os.close(ended)
    for descriptor in (told, tell, end):
        os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_another_user_locks_nothing_that_a_daemon_needs_and_still_learns_of_one() -> None:
    with tempfile.TemporaryDirectory() as folder:  # not below pytest's own, which is root's alone
        Path(folder).chmod(0o755)
        _lock_all_of(Path(folder) / "klinket.pid")


def _lock_all_of(path: Path) -> None:
    PidFile(path).release()  # a daemon ran once
    program = (
        "import fcntl, os, sys, time\nfrom pathlib import Path\nfrom klinket.client.daemon import pid_file\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for path in sorted(Path(sys.argv[1]).parent.iterdir()):\n"
        "    try:\n        file = os.open(path, os.O_RDONLY)\n"
        "        fcntl.lockf(file, fcntl.LOCK_SH)\n        print(path.name, end=' ')\n"
        "    except OSError:\n        pass\n"
        "print(flush=True)\nsys.stdin.readline()\nprint(pid_file.holder(Path(sys.argv[1])), flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().split() == ["klinket.pid"]
        assert pid_file.holder(path) is None
        lock = PidFile(path)
        told, _ = other.communicate("\n", timeout=20)
        lock.release()
    assert told == f"{os.getpid()}\n"


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_told_on_its_socket(kind: str, tmp_path: Path) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@klinket-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0", 1) if kind == "abstract" else name)
        systemd.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())})
        notifier.tell("READY=1", "STATUS=x")
        assert systemd.recv(100) == b"READY=1\nSTATUS=x"
        assert notifier.watchdog_seconds == 10.0


@pytest.mark.parametrize("variables", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}])
def test_without_systemd_nothing_is_said(variables: dict[str, str]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "/nonexistent/socket", **variables} if variables else {})
    notifier.tell("READY=1")
    assert notifier.watchdog_seconds is None


def test_systemd_is_used_only_where_it_runs_and_has_the_unit(tmp_path: Path) -> None:
    own = Paths.from_environment({})
    assert not lifecycle.by_systemd(own, tmp_path)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/klinket.service").touch()
    assert not lifecycle.by_systemd(own, tmp_path), "the unit is there, systemd does not run"
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert lifecycle.by_systemd(own, tmp_path)
    assert not lifecycle.by_systemd(Paths.from_environment({"KLINKET_RUN": "/elsewhere"}), tmp_path)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for systemctl that notes what it is told, and fails when there is a file `broken`."""
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/told\n[ ! -e {tmp_path}/broken ] || {{ echo Job failed >&2; exit 1; }}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(lifecycle, "by_systemd", lambda _: True)
    monkeypatch.setattr(lifecycle, "_undo", lambda: "")
    return tmp_path


def test_where_systemd_has_the_unit_it_starts_and_stops_the_daemon(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(systemctl, systemctl, systemctl, systemctl / "log")
    paths.key_file.write_text("{}")
    statuses = [StatusReport(state="not-answering"), StatusReport(state="connecting"), StatusReport(state="online")]
    monkeypatch.setattr(lifecycle.ask, "status", lambda _: statuses.pop(0))
    assert lifecycle.start(paths, 5).state == "online"
    monkeypatch.setattr(lifecycle.pid_file, "holder", lambda _, found=[4711, None]: found.pop(0))
    assert lifecycle.stop(paths) == "klinket is stopped"
    assert (systemctl / "told").read_text() == "start klinket.service\nstop klinket.service\n"


def test_what_systemd_could_not_do_is_told(systemctl: Path) -> None:
    paths = Paths(systemctl, systemctl, systemctl, systemctl / "log")
    paths.key_file.write_text("{}")
    (systemctl / "broken").touch()
    with pytest.raises(lifecycle.DaemonEnded, match=r"systemctl start klinket\.service failed: Job failed") as told:
        lifecycle.start(paths, 5)
    assert "journalctl -u klinket.service" in told.value.hint


class Capture:
    """Implements machine.MachineCapture; `impossible`: the tries to start that fail."""

    def __init__(self, impossible: int = 0) -> None:
        self.impossible = impossible
        self.followed: list[list[str]] = []
        self.started = self.closed = False

    async def start(self) -> None:
        if self.impossible:
            self.impossible -= 1
            raise CaptureImpossible("no nft here", hint="install nftables")
        self.started = True

    async def follow(self, resources: Sequence[Resource]) -> None:
        assert self.started
        self.followed.append([one.name for one in resources])

    def state(self) -> CaptureState:
        return CaptureState(rules=bool(self.followed), dns=True)

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_every_user_may_ask_and_only_the_owner_read_the_key(umask: int, tmp_path: Path) -> None:
    paths = Paths(tmp_path / "etc", tmp_path / "run", tmp_path / "state", tmp_path / "log")
    former = os.umask(umask)
    try:
        paths.make_run_folder()
        settings.make_folder(paths.etc)
        lock = PidFile(paths.pid_file)
        replace_private(paths.key_file, b"{}")
    finally:
        os.umask(former)
    lock.release()
    modes = [path.stat().st_mode & 0o777 for path in (paths.run, paths.etc, paths.pid_file, paths.key_file)]
    assert modes == [0o755, 0o755, 0o644, 0o600]
    assert (paths.run / "klinket.lock").stat().st_mode & 0o077 == 0


async def test_the_machine_is_claimed_at_once_and_grants_are_followed_when_they_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(machine.socket, "if_nameindex", lambda: [(1, "lo")])
    now: list[Sequence[Resource] | None] = [None]
    capture = Capture(impossible=2)
    made = Machine(capture, lambda: now[0])
    running = asyncio.ensure_future(made.run())
    await eventually(lambda: made.failed is not None)
    await eventually(lambda: capture.started)
    assert (made.failed, made.state, capture.followed) == (None, None, [])
    now[0] = [granted(1, "db.internal")]
    made.changed()
    await eventually(lambda: capture.followed == [["resource 1"]])
    assert made.state == CaptureState(rules=True, dns=True)
    now[0] = []
    made.changed()
    await eventually(lambda: capture.followed[-1] == [])
    running.cancel()
    await made.aclose()
    assert capture.closed


async def test_a_change_that_the_kernel_refuses_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(machine.socket, "if_nameindex", lambda: [(1, "lo")])
    capture = Capture()
    follow = capture.follow
    refused = 1

    async def refuse_once(resources: Sequence[Resource]) -> None:
        nonlocal refused
        refused, was = 0, refused
        if was:
            raise CaptureImpossible("nft: no space")
        await follow(resources)

    monkeypatch.setattr(capture, "follow", refuse_once)
    made = Machine(capture, lambda: [granted(1, "db.internal")])
    running = asyncio.ensure_future(made.run())
    await eventually(lambda: made.failed is not None)
    await eventually(lambda: capture.followed == [["resource 1"]])
    assert made.failed is None
    running.cancel()


def test_another_client_on_the_machine_is_named() -> None:
    machine.refuse_other_clients(["lo", "eth0", "docker0"])
    with pytest.raises(AlreadyRunning, match="Twingate's client is running on this machine"):
        machine.refuse_other_clients(["lo", "sdwan0"])


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----",
        '"private_key": "-----BEGIN PRIVATE KEY-----\\nMIG and cut short',
        token_text.compose(token_text.API_TOKEN, bytes(30)),
        token_text.compose(token_text.RELAY_TOKEN, bytes(30)),
        "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl",
    ],
)
def test_a_report_has_no_secret_in_it(secret: str) -> None:
    kept = diagnostics.without_secrets(f"before {secret}")
    assert kept.startswith("before ")
    assert "MIG" not in kept
    assert secret not in kept
    assert diagnostics.REMOVED in kept


def test_a_name_cannot_break_a_line_of_the_table() -> None:
    table = resource_table([ResourceRow(name="a\tb\nc", address="x.y"), ResourceRow(name="d", address="z", visible=False)])
    assert [len(line.split("\t")) for line in table.splitlines()] == [1, 4, 4, 1, 4, 4]
    assert "BACKGROUND RESOURCES" in table


def test_the_verbose_status_says_who_is_online_and_says_online_of_nothing_else() -> None:
    told = verbose_status(StatusReport(state="online", service_account="acc", key="k", pid=1, network="n:1", resources=2))
    assert told.splitlines()[0] == "Online: service account acc with key k"
    told = verbose_status(StatusReport(state="no-connector", reason="none is connected", next_step="look", pid=1))
    assert told.splitlines()[:2] == ["No connector: none is connected", "Next: look"]
    assert "online" not in told.lower()


@pytest.mark.parametrize("within", [0, 40, 90, 130, 158])
def test_a_report_with_the_end_of_a_log_has_no_rest_of_a_key(
    within: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + ("s3cret" * 10 + "\n") * 2 + "-----END PRIVATE KEY-----"
    after = "\nwhat came after\nand more"
    paths = Paths(tmp_path, tmp_path, tmp_path, tmp_path / "log")
    paths.log.write_text(f"before\n{key}{after}")
    monkeypatch.setattr(diagnostics, "MAX_PART_BYTES", len(key + after) - within)
    kept = diagnostics.without_secrets(diagnostics._log(paths))
    assert "s3cret" not in kept
    assert "and more" in kept


def test_a_log_is_a_plain_file_of_the_daemon_s_user(tmp_path: Path) -> None:
    os.close(lifecycle.open_log(tmp_path / "log"))
    (tmp_path / "log").chmod(0o666)
    os.close(lifecycle.open_log(tmp_path / "log"))
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640
    target = tmp_path / "target"
    target.touch()
    (tmp_path / "symbolic").symlink_to(target)
    (tmp_path / "hard").hardlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    for name in ("symbolic", "hard", "pipe"):
        with pytest.raises(lifecycle.DaemonEnded, match="is not a plain file"):
            lifecycle.open_log(tmp_path / name)
    if os.geteuid() == 0:
        os.chown(tmp_path / "log", 65534, 65534)
        with pytest.raises(lifecycle.DaemonEnded, match="of this user"):
            lifecycle.open_log(tmp_path / "log")
