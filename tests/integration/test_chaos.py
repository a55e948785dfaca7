"""A slice of `./dev chaos`: a fault of each kind under load, and nothing acknowledged is lost, nothing flows beyond its right."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.apart import left_over
from chaos.clocks import compiler
from chaos.faults import AT_ONCE, FAKED, FAULTS, Parted, Together, deck

pytestmark = [pytest.mark.alone, pytest.mark.timeout(600)]
CHAOS = [sys.executable, "-m", "chaos"]


@pytest.mark.root
def test_klinket_holds_and_recovers_under_a_fault_of_each_kind() -> None:
    told = subprocess.run([*CHAOS, "--minutes", "0.05", "--flows", "20", "--json"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    report = json.loads(told.stdout)
    assert report["breaches"] == []
    kinds = {Together.kind} | {kind.kind for kind, _ in FAULTS} - (set() if compiler() else {kind.kind for kind in FAKED})
    assert {row["fault"].partition(":")[0] for row in report["rows"]} == kinds
    assert report["writes"] > 0
    assert report["cut_flows"] > 0


@pytest.mark.parametrize("seed", range(20))
def test_what_strikes_at_once_strikes_different_parts_in_different_ways(seed: int) -> None:
    every = [fault for fault in deck(random.Random(seed), clocks=True) if isinstance(fault, Together)]
    assert sorted(len(fault._faults) for fault in every) == sorted(AT_ONCE)
    for fault in every:
        assert len({one.kind for one in fault._faults}) == len(fault._faults)
        assert len({one.part.partition(" from ")[0] for one in fault._faults}) == len(fault._faults)
        assert sum(isinstance(one, Parted) for one in fault._faults) <= 1


@pytest.mark.root
def test_a_trial_ended_by_a_signal_leaves_nothing_behind(tmp_path: Path) -> None:
    words = [*CHAOS, "--minutes", "5", "--flows", "5"]
    with subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}) as trial:
        end = time.monotonic() + 120
        while len(left_over(tmp_path / "klinket-chaos")) < 8 and time.monotonic() < end:
            time.sleep(0.1)
        begun = left_over(tmp_path / "klinket-chaos")
        trial.send_signal(signal.SIGTERM)
        assert trial.wait(90) == 128 + signal.SIGTERM
    assert len(begun) >= 8
    assert left_over(tmp_path / "klinket-chaos") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "many"])
def test_a_trial_of_no_time_is_refused(minutes: str) -> None:
    told = subprocess.run([*CHAOS, f"--minutes={minutes}"], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "must be a number above 0" in told.stderr
