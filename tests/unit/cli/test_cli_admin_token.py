"""`klinket admin token` against a controller that listens."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from klinket.cli.controller import controller
from klinket.cli.main import klinket
from klinket.controller.app import api_tokens
from klinket.controller.config import API_READS_PER_MINUTE, API_WRITES_PER_MINUTE
from klinket.domain.errors import AuthenticationFailed, Conflict, Forbidden, InvalidInput, KlinketError
from tests.unit.controller.running import Running


class Shell:
    """Runs commands with the token of an admin."""

    def __init__(self, controller: Running, authority: Path) -> None:
        self.controller = controller
        self.environment = {
            "KLINKET_URL": controller.config.public_url,
            "KLINKET_CA": str(authority),
            "KLINKET_API_TOKEN": controller.tokens[api_tokens.ALL_SCOPES],
        }

    async def run(self, *arguments: str) -> Result:
        return await asyncio.to_thread(
            CliRunner().invoke, klinket, ["admin", "token", *arguments], env=self.environment, catch_exceptions=True
        )

    async def done(self, *arguments: str) -> Any:
        """Return the JSON that a command prints."""
        result = await self.run(*arguments, "--json")
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(result.stdout)

    async def refused(self, kind: type[KlinketError], *arguments: str) -> str:
        result = await self.run(*arguments)
        assert isinstance(result.exception, kind), (result.output, result.exception)
        return str(result.exception)


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    running = Running(tmp_path / "state")
    await running.open()
    async with running.listening():
        yield Shell(running, running.config.authority_file)
    running.store.close()


async def test_a_token_is_created_shown_changed_and_ended(shell: Shell) -> None:
    created = await shell.done("create", "terraform", "--scope", "write", "--days", "30", "--range", "127.0.0.0/8")
    assert created["token"].startswith("kl_api_")
    assert (created["scope"], created["state"], created["allowedRanges"]) == ("write", "enabled", ["127.0.0.0/8"])
    assert (await shell.done("show", "terraform"))["id"] == created["id"]
    assert [row["name"] for row in await shell.done("list")][-1] == "terraform"
    changed = await shell.done(
        "update", "terraform", "--name", "tf", "--scope", "read", "--range", "::1", "--range", "192.0.2.0/24"
    )
    assert (changed["name"], changed["scope"], changed["allowedRanges"]) == ("tf", "read", ["::1/128", "192.0.2.0/24"])
    assert (await shell.done("update", "tf", "--from-everywhere"))["allowedRanges"] == []
    assert (await shell.done("disable", "tf"))["state"] == "disabled"
    assert (await shell.done("enable", created["id"]))["state"] == "enabled"
    assert await shell.done("delete", "tf") == {"ok": True}
    assert "tf" not in [row["name"] for row in await shell.done("list")]


async def test_a_new_token_alone_is_on_stdout(shell: Shell) -> None:
    result = await shell.run("create", "ci")
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert text.count("\n") == 1
    assert (await shell.controller.read(lambda tx: api_tokens.by_text(tx, text.strip()))).scopes == ["read"]
    assert "this is the only time it is shown" in result.stderr


async def test_a_new_token_goes_to_a_file_that_only_its_owner_reads(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "ci.token"
    result = await shell.run("create", "ci", "--out", str(file))
    assert result.exit_code == 0, result.output
    text = file.read_text()
    assert text.strip() not in result.output
    assert file.stat().st_mode & 0o777 == 0o600
    await shell.controller.read(lambda tx: api_tokens.by_text(tx, text.strip()))
    assert "is there already" in await shell.refused(Conflict, "create", "other", "--out", str(file))
    assert file.read_text() == text
    elsewhere = tmp_path / "no.token"
    assert "exists already" in await shell.refused(Conflict, "create", "ci", "--out", str(elsewhere))
    assert not elsewhere.exists()


async def test_a_person_reads_a_table(shell: Shell) -> None:
    result = await shell.run("list")
    assert result.exit_code == 0
    assert "LAST USED" in result.stdout
    assert "provision" in result.stdout


def test_the_limits_offered_are_those_of_the_configuration() -> None:
    defaults = {option.name: option.default for option in controller.params}
    assert defaults["api_reads_per_minute"] == API_READS_PER_MINUTE
    assert defaults["api_writes_per_minute"] == API_WRITES_PER_MINUTE


async def test_refusals_say_what_is_wrong(shell: Shell) -> None:
    own = "read and write and provision"
    assert "can change nothing of itself" in await shell.refused(Conflict, "disable", own)
    assert "not a range of addresses" in await shell.refused(Conflict, "create", "x", "--range", "office")
    assert (await shell.run("update", "read", "--range", "::1", "--from-everywhere")).exit_code == 2
    shell.environment["KLINKET_API_TOKEN"] = shell.controller.tokens["read", "write"]
    assert "lacks the scope 'provision'" in await shell.refused(Forbidden, "create", "x")
    shell.environment["KLINKET_API_TOKEN"] = "kl_api_" + "0" * 47
    assert "holds no valid API token" in await shell.refused(AuthenticationFailed, "list")
    del shell.environment["KLINKET_API_TOKEN"]
    if "KLINKET_API_TOKEN" not in os.environ:
        assert "no API token" in await shell.refused(InvalidInput, "list")
