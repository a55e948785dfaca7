"""`./dev` says what it can do before it does anything."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as bench

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
