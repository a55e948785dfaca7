"""`./dev demo --keep`: what it prints can be pasted, and whatever ends it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.deployment import clean_environment

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
#: Seconds the whole demo may take here, beside whatever else the machine does.
PATIENCE = 90.0


@contextmanager
def demo(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Give a demo that keeps running, and the file it prints to; its directory is below `folder`."""
    printed = folder / "printed"
    environment = {**clean_environment(), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with printed.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "examples/demo.py", "--keep"], cwd=ROOT, env=environment, stdout=out, stderr=out
        )
    try:
        yield process, printed
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def wait_for(process: subprocess.Popen[bytes], printed: Path, text: str) -> str:
    """Return what was printed as soon as `text` is in it."""
    deadline = time.monotonic() + PATIENCE
    while text not in (found := printed.read_text()):
        assert process.poll() is None, found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def assert_nothing_left(folder: Path, printed: str) -> None:
    assert list(folder.glob("klinket-demo-*")) == []
    port = re.search(r"controller https://127\.0\.0\.1:(\d+)", printed)
    assert port is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port[1])), timeout=5)


def test_the_next_steps_can_be_pasted_and_sigterm_ends_every_part(tmp_path: Path) -> None:
    with demo(tmp_path) as (process, printed):
        told = wait_for(process, printed, "Running until Ctrl-C.")
        steps = re.search(r"^export KLINKET_URL=.*?(?=^$)", told, re.MULTILINE | re.DOTALL)
        assert steps is not None
        pasted = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", steps[0]],
            cwd=ROOT,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert pasted.returncode == 0, pasted.stdout + pasted.stderr
        assert "gate hinge" in pasted.stdout
        assert "service-key-revoked" in pasted.stdout

        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert_nothing_left(tmp_path, told)


def test_sighup_in_the_middle_ends_every_part(tmp_path: Path) -> None:
    with demo(tmp_path) as (process, printed):
        told = wait_for(process, printed, "2. Describe the private network")
        assert next(tmp_path.glob("klinket-demo-*")).is_dir()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 128 + signal.SIGHUP
        assert_nothing_left(tmp_path, told)


def test_a_hangup_that_nohup_has_ignored_stays_ignored() -> None:
    code = (
        "import signal; from examples.demo import end_on_signals; end_on_signals(); print(signal.getsignal(signal.SIGHUP).name)"
    )
    done = subprocess.run(
        ["nohup", sys.executable, "-c", code], cwd=ROOT, env={**clean_environment(), "PYTHONPATH": os.fspath(ROOT)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.stdout.strip() == "SIG_IGN", done.stderr
