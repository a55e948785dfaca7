"""A minute of `./dev chaos`: parts are killed under load, and no stream is ever silently truncated."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.run import run

pytestmark = [pytest.mark.alone, pytest.mark.timeout(400)]


def test_every_flow_is_whole_or_an_error_while_parts_are_killed() -> None:
    report = run(1.0)
    assert not report.breaches, str(report)


def of_the_trial(folder: Path) -> list[int]:
    """Return the processes that are told of something in a folder, by argument or variable."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder / "klinket-chaos").encode() in (process / "cmdline").read_bytes() + (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def test_a_trial_ended_by_a_signal_leaves_nothing_behind(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "chaos", "--minutes", "5", "--flows", "5"]
    with subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}) as trial:
        end = time.monotonic() + 60
        while len(of_the_trial(tmp_path)) < 3 and time.monotonic() < end:
            time.sleep(0.1)
        begun = of_the_trial(tmp_path)
        trial.send_signal(signal.SIGTERM)
        assert trial.wait(60) == 128 + signal.SIGTERM
    assert len(begun) >= 3
    assert of_the_trial(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "many"])
def test_a_trial_of_no_time_is_refused(minutes: str) -> None:
    told = subprocess.run([sys.executable, "-m", "chaos", f"--minutes={minutes}"], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "must be a number above 0" in told.stderr
