"""Commands of the daemon where there is none: settings, starts that fail, and words that scripts know from elsewhere."""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from klinket.cli.exit_codes import exit_code
from klinket.cli.main import klinket
from klinket.client.daemon import lifecycle
from klinket.client.daemon.lifecycle import DaemonEnded
from klinket.client.daemon.paths import Paths
from klinket.domain.errors import InvalidInput, KlinketError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the daemon is Linux's")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="klk-") as made:
        for name in ("ETC", "RUN", "STATE", "LOG"):
            monkeypatch.setenv(f"KLINKET_{name}", str(Path(made) / name.lower()))
        monkeypatch.delenv("KLINKET_SERVICE_KEY", raising=False)
        yield Path(made)


def run(*words: str) -> Result:
    return CliRunner().invoke(klinket, words)


def fails(*words: str) -> KlinketError:
    error = run(*words).exception
    assert isinstance(error, KlinketError), error
    return error


def test_a_daemon_that_may_not_make_its_folder_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Paths) -> None:
        raise PermissionError(13, "Permission denied", "/run/klinket")

    monkeypatch.setattr(Paths, "make_run_folder", refused)
    error = fails("daemon")
    assert (exit_code(error), error.message) == (96, "the daemon cannot use /run/klinket: Permission denied")
    assert "run it as root" in str(error.hint)


def test_config_shows_all_one_and_what_was_set(folder: Path) -> None:
    shown = run("config").output
    assert "network: none\nlog-level: info\nautostart: true\n" in shown
    assert "tun: on\n" in shown
    assert run("config", "networking", "http-proxy=127.0.0.1:9999", "tun=off").output == "set\n"
    assert run("config", "networking").output.startswith("http-proxy: 127.0.0.1:9999\nsocks: off\ntun: off\n")
    assert run("config", "log-level", "debug").exit_code == 0
    assert run("config", "log-level").output == "debug\n"
    assert run("config", "autostart", "false").output.startswith("set; autostart needs systemd")
    assert json.loads((folder / "etc" / "settings.json").read_text())["tun"] is False
    assert stat.S_IMODE((folder / "etc" / "settings.json").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("config", "colour"), "config"),
        (("config", "log-level", "loud"), "log-level"),
        (("config", "log-level", "info", "debug"), "log-level"),
        (("config", "networking", "tun"), "networking"),
        (("config", "networking", "log-level=info"), "networking"),
        (("config", "network", "elsewhere"), "network"),
        (("setup",), "--headless"),
        (("wait", "--timeout", "-1"), "timeout"),
        (("wait", "db:0"), "--wait"),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(words: tuple[str, ...], field: str, folder: Path) -> None:
    error = fails(*words)
    assert isinstance(error, InvalidInput)
    assert error.field == field
    assert not (folder / "etc").exists()


def test_without_a_daemon_each_command_says_so(folder: Path) -> None:
    assert run("status").output == "uninitialized\n"
    assert run("status", "-d").output == "uninitialized\n"
    assert run("stop").output == "klinket is not running\n"
    assert exit_code(fails("resources")) == 95
    assert exit_code(fails("start")) == 65
    assert json.loads(run("status", "--json").output)["next_step"] == "klinket setup --headless FILE"
    assert run("status", "-v").output == "Uninitialized: there is no service key\nNext: klinket setup --headless FILE\n"


def test_names_that_scripts_know_are_there_and_are_not_listed() -> None:
    assert run("version").output == run("--version").output
    assert "service-start" not in run("--help").output
    assert run("service-start", "--help").exit_code == 0


def test_a_daemon_that_ends_at_its_start_is_told_with_its_last_words(folder: Path) -> None:
    (folder / "etc").mkdir()
    (folder / "etc" / "service_key.json").write_text("not a key")
    error = fails("start")
    assert isinstance(error, DaemonEnded)
    assert "service-key-invalid: key file: not JSON" in error.message or "neither JSON nor base64" in error.message


def test_a_daemon_that_takes_its_time_is_not_taken_for_one_that_has_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = folder / "slow"
    slow.write_text("#!/bin/sh\nsleep 3\nexit 1\n")
    slow.chmod(0o755)
    monkeypatch.setattr(lifecycle.sys, "executable", str(slow))
    (folder / "etc").mkdir()
    (folder / "etc" / "service_key.json").write_text("{}")
    alive = lifecycle._spawn(Paths.from_environment())
    try:
        assert not lifecycle._is_at_its_end(alive)
        monkeypatch.setattr(lifecycle, "APPEAR_SECONDS", 10.0)
        with pytest.raises(DaemonEnded):
            lifecycle._until_settled(Paths.from_environment(), 0.0, alive)
        assert lifecycle._is_at_its_end(alive)
    finally:
        os.close(alive)
