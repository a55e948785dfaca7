"""The watcher executes its will when its klinket has died, and only then. The claim is one process's at a time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from klinket.client.capture.host import claim, tools, watcher
from klinket.domain.errors import CaptureImpossible

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> bytes:
    made = f"\0klinket-test-{os.getpid()}-{time.monotonic_ns()}".encode()
    monkeypatch.setattr(claim, "NAME", made)
    return made


class Watching:
    def __init__(self, name: bytes, done: Path) -> None:
        self.done = done
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", watcher.__file__], stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        commands = [[["false"], ""], [["tee", str(done)], "executed"], [["no-such-program"], ""]]
        self.tell(json.dumps({"claim": name.hex(), "commands": commands}).encode() + b"\n")

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
def watching(name: bytes, tmp_path: Path) -> Iterator[Watching]:
    made = Watching(name, tmp_path / "done")
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


def test_a_new_klinket_is_left_alone(watching: Watching, name: bytes) -> None:
    with claim.take():
        assert watching.end() == 0
    assert not watching.executed()


def test_the_claim_of_the_dead_is_waited_for(watching: Watching) -> None:
    held = claim.take()
    assert watching.process.stdin is not None
    watching.process.stdin.close()
    time.sleep(0.3)
    assert not watching.executed()
    held.close()
    watching.process.wait(20)
    assert watching.executed()


def test_what_ends_klinket_does_not_end_the_watcher(watching: Watching) -> None:
    time.sleep(0.5)  # it has started
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        watching.process.send_signal(number)
    time.sleep(0.1)
    assert watching.process.poll() is None
    watching.end()
    assert watching.executed()


def test_without_a_will_nothing_is_done() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", watcher.__file__], input=b"", capture_output=True, timeout=20)
    assert done.returncode == 0


def test_a_claim_is_one_process_s_and_says_whose(name: bytes) -> None:
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import socket,sys,time\ns=socket.socket(socket.AF_UNIX)\ns.bind(bytes.fromhex(sys.argv[1]))\n"
            "s.listen(1)\nprint('held',flush=True)\ntime.sleep(60)",
            name.hex(),
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
    with claim.take(), pytest.raises(CaptureImpossible):
        claim.take(wait=0)
    claim.take(wait=0).close()


def test_a_claim_is_not_inherited(name: bytes) -> None:
    with claim.take() as held:
        assert isinstance(held, socket.socket)
        assert not os.get_inheritable(held.fileno())


def test_a_claim_lasts_until_the_last_tool_has_ended(name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    held = claim.take()
    monkeypatch.setattr(tools, "inherited", [held.fileno()])
    at_work = threading.Thread(target=tools.run, args=(("sh", "-c", "sleep 1"),))
    at_work.start()
    time.sleep(0.3)
    held.close()  # as when its process dies
    with pytest.raises(CaptureImpossible):
        claim.take(wait=0)
    at_work.join()
    claim.take(wait=0).close()


def test_a_tool_that_is_missing_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(CaptureImpossible, match="nft is missing") as caught:
        tools.run(tools.NFT)
    assert "nftables" in caught.value.hint


def test_a_tool_that_fails_is_told_in_its_own_words() -> None:
    with pytest.raises(CaptureImpossible, match="no such thing"):
        tools.run(("sh", "-c", "echo no such thing >&2; exit 3"))
