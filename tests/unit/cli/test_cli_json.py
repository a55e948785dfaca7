"""Every command that prints facts has `--json`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from klinket.cli.main import klinket
from klinket.connector import drain as connector_drain
from klinket.wire.version import PRODUCT_VERSION
from tests.unit.cli.conftest import Admin

#: Those that print no facts, and what standard output is for with them.
WITHOUT_JSON = {
    "run": "the command's own output",
    "ssh-proxy": "the bytes of ssh",
    "client": "nothing: it runs until it is stopped, and logs",
    "daemon": "nothing: it runs until it is stopped, and logs",
    "connector": "lines for each connection, if they are asked for: it runs until it is stopped",
    "relay": "nothing: it runs until it is stopped, and logs",
    "controller": "events as JSON lines, if they are asked for: it runs until it is stopped",
    "completion": "a script for a shell",
}


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, groups that do among them."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield " ".join(path), command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from leaves(below, (*path, name))


def test_every_command_that_prints_facts_has_json() -> None:
    has = {path: any("--json" in one.opts for one in command.params) for path, command in leaves(klinket)}
    assert len(has) > 95
    assert {path for path, found in has.items() if not found} == set(WITHOUT_JSON)


def printed(*words: str) -> Any:
    result = CliRunner().invoke(klinket, [*words, "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("ETC", "RUN", "STATE", "LOG"):
        monkeypatch.setenv(f"KLINKET_{name}", str(tmp_path / name.lower()))
    return tmp_path


def test_the_version_is_a_field() -> None:
    assert printed("version") == {"version": PRODUCT_VERSION}


def test_settings_have_the_names_and_values_of_their_file(folder: Path) -> None:
    everything = printed("config")
    assert everything["network"] is None
    assert (everything["tun"], everything["users"], everything["log_level"]) == (True, [], "info")
    done = printed("config", "networking", "http-proxy=127.0.0.1:9999", "capture=off")
    assert done == {"ok": True, "http_proxy": "127.0.0.1:9999", "tun": False, "message": "set"}
    kept = json.loads((folder / "etc" / "settings.json").read_text())
    shown = printed("config")
    assert {name: shown[name] for name in kept} == kept
    assert printed("config", "log-level") == {"log_level": "info"}
    assert set(printed("config", "networking")) < set(kept)
    assert printed("config", "network") == {"network": None}


def test_a_report_names_its_file(folder: Path) -> None:
    written = printed("report", str(folder / "report.zip"))["file"]
    assert Path(written).read_bytes().startswith(b"PK")


def test_stopping_where_nothing_runs_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klinket.client.daemon.lifecycle.stop", lambda paths: "klinket is not running")
    assert printed("stop") == {"ok": True, "message": "klinket is not running"}


def test_a_drained_connector_is_one_document_on_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drained(folder: Path, tell: Any, timeout: float | None) -> None:
        for live in (2, 1, 0):
            tell(live)

    monkeypatch.setattr(connector_drain, "drain", drained)
    result = CliRunner().invoke(klinket, ["connector", "drain", "--state", str(tmp_path), "--json"])
    assert json.loads(result.stdout) == {"ok": True, "flows": 2}
    assert result.stderr.splitlines() == [f"draining: {live} live flows" for live in (2, 1, 0)]
    assert CliRunner().invoke(klinket, ["connector", "drain", "--state", str(tmp_path)]).stdout.endswith("no flow was lost\n")


async def test_what_was_issued_is_in_fields(admin: Admin) -> None:
    state = str(admin.running.config.state)

    async def issued(*words: str) -> dict[str, Any]:
        found: dict[str, Any] = await asyncio.to_thread(printed, "issue", *words, "--state", state)
        return found

    token = await issued("api-token", "recovery")
    assert token["name"] == "recovery"
    assert token["token"].startswith("kl_api_")
    assert set(await issued("relay-token", "frankfurt-1")) == {"name", "token"}
    link = await issued("admin-link", "ada@example.com")
    assert link["email"] == "ada@example.com"
    assert link["link"] is None or link["link"].endswith(f"#{link['code']}")
    made = await issued("signing-key", "cut")
    assert re.match("cut-", made["made"])
    assert made["signs_in_seconds"] == 300
    accepted = await issued("accept-head", "--yes")
    assert accepted["ok"] is True
    assert accepted["epoch"] > 0


async def test_a_key_that_was_set_up_and_then_ended_is_told_in_fields(
    admin: Admin, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("klinket.cli.roles.forbid_core_dumps", lambda: None)  # it would hold for the tests
    monkeypatch.setattr("klinket.cli.roles.set_up_logging", lambda level: None)
    _, key = await admin.running.add_key(await admin.running.add_account("ci"))
    file = folder / "ci.json"
    file.write_text(key.to_json())
    kept = await asyncio.to_thread(printed, "setup", "--headless", str(file), "--no-check")
    assert kept["ok"] is True
    assert kept["messages"][0].startswith(f"key {key.key_id} ")
    assert kept["warnings"] == []
    ended = await asyncio.to_thread(printed, "revoke", "--key-file", str(file))
    assert (ended["ok"], ended["key_id"]) == (True, key.key_id)
    assert "is revoked" in ended["message"]
