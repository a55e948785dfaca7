"""How `klinket run` begins, or does not: what it waits for, what it says, and how long that takes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Admin

#: Seconds that a start which ends at once may take on a busy machine; `--timeout` is far above.
AT_ONCE = 15.0


async def started(key_file: Path, *words: str) -> tuple[int, str, float]:
    """Return exit code, stderr and seconds of `klinket run`."""

    def run() -> tuple[int, str, float]:
        code = "from klinket.cli.main import main; main()"
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, "run", "--capture", "proxy", "--key-file", str(key_file), *words],
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return done.returncode, done.stderr, time.monotonic() - begun

    return await asyncio.to_thread(run)


async def key_of(admin: Admin, resources: list[str] | None = None, **changed: object) -> Path:
    """Return the path of a key file of a new account; `changed`: fields that are written otherwise."""
    _, key_file = await admin.running.add_key(await admin.running.add_account("ci", resources))
    path = admin.folder / "key.json"
    path.write_text(json.dumps({**json.loads(key_file.to_json()), "controller_ca": admin.running.authority, **changed}))
    return path


@pytest.mark.parametrize(("command", "code", "word"), [("/nosuchcmd", 127, "command not found"), ("/etc/passwd", 126, "denied")])
async def test_a_command_that_cannot_run_has_a_code_word(admin: Admin, command: str, code: int, word: str) -> None:
    ended, told, _ = await started(await key_of(admin), "--", command)
    assert ended == code
    line = next(line for line in told.splitlines() if command in line)
    assert line.startswith(f"klinket: command-not-executed: {command}: ")
    assert word in line


async def test_who_is_not_the_controller_is_not_asked_again(admin: Admin, tmp_path: Path) -> None:
    other = type(admin.running)(tmp_path / "other")
    await other.open()
    other.store.close()
    code, told, seconds = await started(await key_of(admin, controller_ca=other.authority), "--timeout", "60", "--", "true")
    assert code == 74
    assert "does not prove who it is" in told
    assert seconds < AT_ONCE


async def test_a_path_that_is_not_the_controllers_is_not_asked_again(admin: Admin) -> None:
    code, told, seconds = await started(await key_of(admin, login_path="/nothing/here"), "--timeout", "60", "--", "true")
    assert code == 74, told
    assert seconds < AT_ONCE


async def test_a_closed_port_is_asked_again_until_the_end(admin: Admin) -> None:
    code, told, seconds = await started(await key_of(admin, network="127.0.0.1:1"), "--timeout", "4", "--", "true")
    assert code == 74, told
    assert seconds > 3.4


@pytest.mark.parametrize("alias", [None, "db.lab.internal"])
async def test_a_resource_at_the_commands_own_machine_is_warned_of_unless_it_has_an_alias(
    admin: Admin, alias: str | None
) -> None:
    network = await admin.running.add_network()
    resource = await admin.running.add_resource(network, address="127.0.0.9")
    change = "mutation ($i: ID!, $a: String) { resourceUpdate(id: $i, alias: $a) { ok error } }"
    assert (await admin.running.change(change, i=resource, a=alias))["ok"]
    key = await key_of(admin, [resource])
    edge = await admin.running.enrol(await admin.running.connector_tokens(await admin.running.add_connector(network)))
    async with admin.running.attached(edge):
        code, told, _ = await started(key, "--timeout", "3", "--", "true")
    assert code == 69
    notice = "the resource 'Database' is at 127.0.0.9, which is the command's own machine: give the resource an alias"
    assert (notice in told) is (alias is None)
