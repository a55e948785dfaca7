"""`./dev` says what it can do before it does anything."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import __main__ as bench
from chaos.report import Report
from chaos.run import Trial
from tests.unit.controller.console.chromium import needs_chromium

DEV = Path(__file__).parents[2] / "dev"


@pytest.mark.parametrize("name", bench.NAMES)
def test_a_measurement_explains_its_options_with_an_example_and_starts_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"bench.{name}").main()
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"usage: ./dev bench {name}" in told
    assert f"example: ./dev bench {name}" in told
    assert "--json" in told


def test_all_measurements_are_listed_with_what_they_measure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    assert bench.main() == 0
    lines = capsys.readouterr().out.splitlines()
    for name in bench.NAMES:
        assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in lines), name


def test_a_measurement_that_there_is_not_is_a_mistake_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "cuts"])
    assert bench.main() == 2
    assert "there are: abuse" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["lint", "format", "docs", "lock", "shell", "test"])
def test_asking_a_development_command_for_help_does_not_run_it(command: str) -> None:
    asked = subprocess.run([str(DEV), command, "--help"], capture_output=True, text=True, timeout=20)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.startswith("usage: ./dev COMMAND")


@pytest.mark.parametrize(("bears", "told"), [(False, [": a flow"]), (True, [", while it lasts: a flow", "; afterwards: a flow"])])
def test_a_trial_tells_which_of_two_recoveries_it_means(bears: bool, told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    world: Any = SimpleNamespace(heal=lambda: None, probe=lambda: True, all_works=lambda: None)
    load: Any = SimpleNamespace(lost=0)
    writes: Any = SimpleNamespace(lost=[], one=lambda: True, error="")
    yardstick: Any = SimpleNamespace(slowness=lambda begin, end: 1.0)
    fault: Any = SimpleNamespace(name="slow", parts=("relay",), bears=bears, begin=lambda world: None, end=lambda world: None)
    Trial(world, load, writes, yardstick, Report(1)).strike(fault, 0.0)
    assert [one[0] + one[1] for one in re.findall("(: |[,;] [a-z ]+: )(a flow)", capsys.readouterr().err)] == told


@needs_chromium
@pytest.mark.timeout(300)
def test_pictures_tell_how_far_they_are(tmp_path: Path) -> None:
    asked = [sys.executable, "-m", "tools.screenshots", "sign-in", "--folder", str(tmp_path)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=280, cwd=DEV.parent, check=True)
    assert done.stdout.splitlines() == ["making an example network", "starting Chromium", "1 of 1: sign-in"]
    assert len(list(tmp_path.glob("sign-in-*.png"))) == 4
