"""The watcher executes its will when its klinket has died, and only then. The claim is one process's at a time."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from klinket.client.capture import syscalls
from klinket.client.capture.host import claim, routes, tools, watcher
from klinket.domain.errors import CaptureImpossible

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TUN interfaces are Linux's")


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    """A network namespace of the test's own: for this thread, and what it starts."""
    if os.geteuid() != 0 or not os.path.exists(watcher.DEVICE):
        pytest.skip("TUN interfaces need root and /dev/net/tun")
    libc = ctypes.CDLL(None, use_errno=True)
    former = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
    except OSError as error:
        os.close(former)
        pytest.skip(f"no network namespace here: {error}")
    yield
    assert libc.setns(former, syscalls.CLONE_NEWNET) == 0
    os.close(former)


class Watching:
    def __init__(self, done: Path) -> None:
        self.done = done
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", watcher.__file__], stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        commands = [[["false"], ""], [["tee", str(done)], "executed"], [["no-such-program"], ""]]
        self.tell(json.dumps({"claim": routes.LINK, "commands": commands}).encode() + b"\n")

    def tell(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)

    def executed(self) -> bool:
        return self.done.exists() and self.done.read_text() == "executed"


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    made = Watching(tmp_path / "done")
    yield made
    made.process.kill()
    made.process.wait()
    assert made.process.stderr is not None
    made.process.stderr.close()


def test_the_end_of_klinket_executes_the_whole_will(watching: Watching) -> None:
    assert watching.end() == 1, "it says that something failed"
    assert watching.executed()


def test_a_klinket_that_cleaned_up_itself_leaves_nothing_to_do(watching: Watching) -> None:
    watching.tell(b"done\n")
    assert watching.end() == 0
    assert not watching.executed()


def test_a_new_klinket_is_left_alone(watching: Watching) -> None:
    held = claim.take()
    assert watching.end() == 0
    os.close(held)
    assert not watching.executed()


def test_the_claim_of_the_dead_is_waited_for(watching: Watching) -> None:
    held = claim.take()
    assert watching.process.stdin is not None
    watching.process.stdin.close()
    time.sleep(0.3)
    assert not watching.executed()
    os.close(held)
    watching.process.wait(20)
    assert watching.executed()


def ignored(pid: int) -> int:
    """Return the signals a process ignores; bit 0 is signal 1."""
    (mask,) = (line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn:"))
    return int(mask, 16)


def test_what_ends_klinket_does_not_end_the_watcher(watching: Watching) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    deadline = time.monotonic() + 20
    while not all(ignored(watching.process.pid) >> (number - 1) & 1 for number in numbers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for number in numbers:
        watching.process.send_signal(number)
    time.sleep(0.1)
    assert watching.process.poll() is None
    watching.end()
    assert watching.executed()


def test_without_a_will_nothing_is_done() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", watcher.__file__], input=b"", capture_output=True, timeout=20)
    assert done.returncode == 0


def test_a_claim_is_one_process_s_and_says_whose() -> None:
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import time\nfrom klinket.client.capture.host import claim, tools\nclaim.take()\n"
            "tools.run(tools.ip(4), claim.signed())\nprint('held',flush=True)\ntime.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CaptureImpossible, match=f"process {holder.pid}") as caught:
            claim.take(wait=0.1)
        assert caught.value.hint
    finally:
        holder.kill()
        holder.wait()
    assert holder.stdout is not None
    holder.stdout.close()
    held = claim.take()
    with pytest.raises(CaptureImpossible):
        claim.take(wait=0)
    os.close(held)
    os.close(claim.take(wait=0))


def test_a_claim_is_not_inherited() -> None:
    held = claim.take()
    assert not os.get_inheritable(held)
    os.close(held)


@pytest.fixture
def squatter() -> Iterator[None]:
    """Another user who takes what it can get of klinket's names."""
    program = (
        "import os,socket,sys,time\nfrom klinket.client.capture.host import claim\n"
        "socket.setdefaulttimeout(1)\ns=socket.socket(socket.AF_UNIX); s.bind(b'\\0klinket-capture'); s.listen(1)\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    claim.take(wait=0)\nexcept Exception as error:\n    print(type(error).__name__,flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"CaptureImpossible\n", "no other user may have the claim"
    yield
    process.kill()
    process.wait()
    process.stdout.close()


def test_another_user_keeps_nobody_from_the_claim(squatter: None, watching: Watching) -> None:
    os.close(claim.take(wait=0))
    watching.end()
    assert watching.executed()


def test_a_claim_lasts_until_the_last_tool_has_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = claim.take()
    monkeypatch.setattr(tools, "inherited", [held])
    os.mkfifo(begun := tmp_path / "begun")
    os.mkfifo(end := tmp_path / "end")
    at_work = threading.Thread(target=tools.run, args=(("sh", "-c", f"echo > {begun}; read line < {end}"),))
    at_work.start()
    begun.read_text()
    os.close(held)  # as when its process dies
    with pytest.raises(CaptureImpossible):
        claim.take(wait=0)
    end.write_text("\n")
    at_work.join()
    os.close(claim.take(wait=0))


def test_a_tool_that_is_missing_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(CaptureImpossible, match="nft is missing") as caught:
        tools.run(tools.NFT)
    assert "nftables" in caught.value.hint


def test_a_tool_that_fails_is_told_in_its_own_words() -> None:
    with pytest.raises(CaptureImpossible, match="no such thing"):
        tools.run(("sh", "-c", "echo no such thing >&2; exit 3"))


def test_a_tool_of_the_caller_s_path_is_not_root_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("sh", "klinket-test-tool"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.find(["sh"])[0] != str(tmp_path / "sh")
    with pytest.raises(CaptureImpossible, match="klinket-test-tool is missing"):
        tools.find(["klinket-test-tool"])
