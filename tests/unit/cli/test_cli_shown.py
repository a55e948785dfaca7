"""Logs, tables and errors show what others have called themselves, and do nothing of it: no escape sequence, no forged line."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from klinket.cli import roles
from klinket.cli.admin import output
from klinket.cli.main import main
from klinket.cli.scan import scan
from klinket.domain.errors import InvalidInput

HOSTILE = "web\x1b]0;owned\x07\r\n2026-01-01 ERROR forged: line"


@pytest.fixture
def logging_as_before():  # type: ignore[no-untyped-def]
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_log_line_stays_one_line_whatever_a_peer_has_sent(tmp_path: Path, logging_as_before: None) -> None:
    roles.set_up_logging("info", tmp_path / "log")
    logging.getLogger("klinket.controller.login").warning("login refused: %s, key %s", "service-key-unknown", HOSTILE)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert r"\x1b]0;owned" in lines[0]


def test_a_traceback_goes_on_below_its_line_and_nothing_in_it_looks_like_another(tmp_path: Path, logging_as_before: None) -> None:
    roles.set_up_logging("info", tmp_path / "log")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("klinket").exception("the channel failed")
    first, *rest = (tmp_path / "log").read_text().split("\n")[:-1]
    assert first.endswith("the channel failed")
    assert rest
    assert all(line.startswith("  ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("value", [HOSTILE, [HOSTILE, "b"], {"hostname": HOSTILE}])
def test_a_table_shows_names_of_others_without_their_effect(capsys: pytest.CaptureFixture[str], value: object) -> None:
    output.show_rows([{"id": 1, "hostname": value}], {"ID": "id", "HOST": "hostname"}, as_json=False)
    output.show_object({"id": 1, "hostname": value}, as_json=False)
    shown = capsys.readouterr().out
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    assert not any(line.lstrip().startswith("2026-01-01 ERROR") for line in shown.splitlines())


def test_an_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(**_: object) -> None:
        raise InvalidInput("name", f"not a name: {HOSTILE}", hint=HOSTILE)

    monkeypatch.setattr("klinket.cli.main.klinket", fail)
    with pytest.raises(SystemExit):
        main()
    first, second = capsys.readouterr().err.splitlines()
    assert first.isprintable()
    assert second.isprintable()


def test_scan_shows_a_hostile_file_name_without_its_effect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from klinket.domain import token_text

    (tmp_path / "a\x1b]0;x\x07\nb").write_text(token_text.compose(token_text.RELAY_TOKEN, bytes(30)))
    with pytest.raises(SystemExit):
        scan.main([str(tmp_path)], standalone_mode=False)
    found = capsys.readouterr().out
    assert len(found.splitlines()) == 1
    assert "\x1b" not in found


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_core_dumps_are_off_also_where_a_handler_takes_them() -> None:
    """security.md 3: a limit of 0 alone does not hold a core_pattern that pipes (core(5))."""
    asked = (
        "import ctypes, resource; from klinket.cli import roles; roles.forbid_core_dumps();"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == ["(0,", "0)", "0"]  # PR_GET_DUMPABLE
