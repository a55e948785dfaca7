"""`klinket admin network, connector, resource, service, service key`: tables, JSON, secrets, errors and exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from examples.deployment import free_port
from klinket.cli.main import klinket
from klinket.controller.app import api_tokens
from klinket.wire.key_file import parse_key_file
from tests.unit.controller.running import Running

#: Seconds a command may take.
PATIENCE = 30.0


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int
    stdout: str
    stderr: str


class Shell:
    """An admin's shell: `run` inside this process, `process` as people do, with exit codes and the lines of errors."""

    def __init__(self, running: Running, authority: Path) -> None:
        self.running = running
        self.environment: dict[str, str] = {
            "KLINKET_URL": running.config.public_url,
            "KLINKET_CA": str(authority),
            "KLINKET_API_TOKEN": running.tokens[api_tokens.ALL_SCOPES],
        }

    async def run(self, *words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, klinket, ["admin", *words], env=self.environment)

    async def ok(self, *words: str) -> Result:
        result = await self.run(*words)
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    async def json(self, *words: str) -> Any:
        """Return the JSON that is all a command prints."""
        result = await self.ok(*words, "--json")
        assert result.stderr == ""
        return json.loads(result.stdout)

    async def table(self, *words: str) -> list[list[str]]:
        """Return the cells of a table for people, titles first. Cells are two blanks apart or more."""
        result = await self.ok(*words)
        assert result.stderr == ""
        return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in result.stdout.splitlines()]

    async def process(self, *words: str, without: str = "", **environment: str) -> Ended:
        """Run `klinket admin WORDS` as a process of its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KLINKET_")}
        merged = {**inherited, **self.environment, **environment}
        merged.pop(without, None)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "klinket", "admin", *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=merged,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE):
            output, errors = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, output.decode(), errors.decode())


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    running = Running(tmp_path / "state")
    await running.open()
    async with running.listening():
        yield Shell(running, running.config.authority_file)
    running.store.close()


async def furnish(shell: Shell) -> None:
    """Make one of everything."""
    for words in (
        ("network", "create", "office", "--location", "aws"),
        ("connector", "create", "--network", "office", "office-1"),
        (
            "resource", "create", "--network", "office", "--address", "10.0.0.5", "--alias", "db.internal",
            "--tcp", "5432,8000-8100", "Orders",
        ),
        ("service", "create", "ci"),
        ("service", "grant", "ci", "Orders"),
    ):  # fmt: skip
        assert (await shell.ok(*words)).stdout == ""
    assert (await shell.ok("service", "key", "generate", "ci", "--name", "runner", "--days", "30")).exit_code == 0


# ---- reading

#: By list: its titles, and what its one row begins with.
TABLES = {
    "network": (["NAME", "LOCATION", "CONNECTORS", "RESOURCES", "ID"], ["office", "AWS", "1", "1"]),
    "connector": (
        ["NAME", "NETWORK", "STATE", "VERSION", "HOST", "LAST HEARTBEAT", "ID"],
        ["office-1", "office", "DEAD_NO_HEARTBEAT", "-", "-", "-"],
    ),
    "resource": (
        ["NAME", "ADDRESS", "ALIAS", "NETWORK", "TCP", "UDP", "ACTIVE", "ID"],
        ["Orders", "10.0.0.5", "db.internal", "office", "5432,8000-8100", "none", "yes"],
    ),
    "service": (["NAME", "ACTIVE KEYS", "KEYS", "RESOURCES", "ID"], ["ci", "1", "1", "Orders"]),
    "service key": (
        ["SERVICE", "KEY", "STATUS", "EXPIRES", "LAST USED", "ON", "FROM", "CLIENT", "IDLE", "SEATS", "CANARY", "ID"],
        ["ci", "runner", "ACTIVE"],
    ),
}


async def test_people_read_tables_and_scripts_json_of_the_same_rows(shell: Shell) -> None:
    await furnish(shell)
    for noun, (titles, begins) in TABLES.items():
        table = await shell.table(*noun.split(), "list")
        assert table[0] == titles, noun
        assert len(table) == 2, noun
        assert table[1][: len(begins)] == begins, noun
        (row,) = await shell.json(*noun.split(), "list")
        assert table[1][-1] == row["id"], noun
        assert begins[0] in (row.get("service"), row["name"])


async def test_an_empty_list_says_what_comes_next_and_is_an_empty_list_for_scripts(shell: Shell) -> None:
    for noun in TABLES:
        result = await shell.ok(*noun.split(), "list")
        assert result.stdout == ""
        assert f"klinket admin {noun} " in result.stderr, noun
        assert await shell.json(*noun.split(), "list") == []
    assert (await shell.ok("cut", "list")).stdout == ""
    assert await shell.json("cut", "list") == []


async def test_one_object_is_shown_by_name_and_by_id(shell: Shell) -> None:
    await furnish(shell)
    for noun, name in (("network", "office"), ("connector", "office-1"), ("resource", "Orders"), ("service", "ci")):
        shown = await shell.json(noun, "show", name)
        assert shown["name"] == name
        assert await shell.json(noun, "show", shown["id"]) == shown
        assert f"{shown['id']}\n" in (await shell.ok(noun, "show", name)).stdout
    assert [entry["name"] for entry in (await shell.json("resource", "show", "Orders"))["access"]] == ["ci"]


# ---- changing


async def test_a_resource_is_changed_disabled_enabled_and_deleted(shell: Shell) -> None:
    await furnish(shell)
    await shell.json("resource", "update", "Orders", "--name", "Ledger", "--alias", "", "--udp", "53")
    shown = await shell.json("resource", "show", "Ledger")
    # What was not named stays, also the TCP ports beside the new UDP port.
    assert {key: shown[key] for key in ("alias", "address", "tcp", "udp", "icmp", "active")} == {
        "alias": None, "address": "10.0.0.5", "tcp": "5432,8000-8100", "udp": "53", "icmp": False, "active": True,
    }  # fmt: skip
    await shell.json("resource", "update", "Ledger", "--address", "db.corp.internal", "--tcp", "none", "--icmp")
    shown = await shell.json("resource", "show", "Ledger")
    assert (shown["address"], shown["tcp"], shown["udp"], shown["icmp"]) == ("db.corp.internal", "none", "53", True)
    assert "disabled resource Ledger" in (await shell.ok("resource", "disable", "Ledger")).stderr
    assert (await shell.json("resource", "show", "Ledger"))["active"] is False
    await shell.json("resource", "enable", "Ledger")
    assert (await shell.json("resource", "show", "Ledger"))["active"] is True
    assert await shell.json("resource", "delete", "Ledger") == {"ok": True}
    assert await shell.json("resource", "list") == []


async def test_a_resource_without_ports_is_open_and_with_any_only_what_is_named(shell: Shell) -> None:
    await shell.json("network", "create", "office")
    for name, options, ports in (
        ("open", [], ("all", "all", True)),
        ("web", ["--tcp", "443"], ("443", "none", False)),
        ("dns", ["--udp", "53", "--icmp"], ("none", "53", True)),
        ("all", ["--tcp", "all"], ("all", "none", False)),
    ):
        await shell.json("resource", "create", "--network", "office", "--address", f"{name}.internal", *options, name)
        shown = await shell.json("resource", "show", name)
        assert (shown["tcp"], shown["udp"], shown["icmp"]) == ports, name


async def test_a_service_account_is_renamed_granted_and_deleted(shell: Shell) -> None:
    await furnish(shell)
    assert (await shell.json("service", "rename", "ci", "nightly"))["name"] == "nightly"
    await shell.json("service", "ungrant", "nightly", "Orders")
    assert (await shell.json("service", "show", "nightly"))["resources"] == []
    until = "2027-01-01T00:00:00+00:00"
    offset = shell.running.offset  # a year ahead at the most, whatever this machine's clock says
    try:
        shell.running.offset = 1_780_000_000 - shell.running.clock() + offset
        await shell.json("service", "grant", "nightly", "Orders", "--expires", until)
        (access,) = (await shell.json("resource", "show", "Orders"))["access"]
        assert access["expiresAt"].startswith("2027-01-01T00:00:00")
    finally:
        shell.running.offset = offset
    assert await shell.json("service", "delete", "nightly") == {"ok": True}
    assert await shell.json("service", "list") == []


async def test_of_keys_with_one_name_the_active_one_is_revoked(shell: Shell, tmp_path: Path) -> None:
    await furnish(shell)
    await shell.ok("service", "key", "generate", "ci", "--name", "runner", "--out", str(tmp_path / "second.json"))
    refused = await shell.run("service", "key", "revoke", "ci", "runner")
    assert "several have the name 'runner'" in str(refused.exception)
    assert str(refused.exception).count("(ACTIVE)") == 2
    first = (await shell.json("service", "key", "list", "ci"))[0]["id"]
    await shell.json("service", "key", "revoke", "ci", first)
    await shell.json("service", "key", "revoke", "ci", "runner")
    assert {row["status"] for row in await shell.json("service", "key", "list", "ci")} == {"REVOKED"}


async def test_ports_may_be_given_one_option_after_the_other(shell: Shell) -> None:
    await furnish(shell)
    await shell.json("resource", "update", "Orders", "--tcp", "99", "--tcp", "8000-8100", "--udp", "53", "--udp", "54")
    shown = await shell.json("resource", "show", "Orders")
    assert (shown["tcp"], shown["udp"]) == ("99,8000-8100", "53,54")


async def test_a_key_is_renamed_revoked_and_then_deleted(shell: Shell) -> None:
    await furnish(shell)
    assert (await shell.json("service", "key", "rename", "ci", "runner", "old runner"))["name"] == "old runner"
    revoked = await shell.json("service", "key", "revoke", "ci", "old runner")
    assert revoked["status"] == "REVOKED"
    assert revoked["revokedAt"] is not None
    (cut,) = await shell.json("cut", "list")
    assert (cut["reason"], [receipt["connector"] for receipt in cut["receipts"]]) == ("service-key-revoked", ["office-1"])
    (row,) = (await shell.table("cut", "list"))[1:]
    assert {"service-key-revoked", "0 of 1"} <= set(row)
    shown = (await shell.ok("cut", "show", str(cut["id"]))).stdout
    assert "office-1" in shown
    assert "pending" in shown
    assert await shell.json("service", "key", "delete", "ci", "old runner") == {"ok": True}
    assert await shell.json("service", "key", "list", "ci") == []


async def test_a_network_is_deleted_when_it_is_empty(shell: Shell) -> None:
    await furnish(shell)
    assert (await shell.run("network", "delete", "office")).exit_code != 0
    await shell.json("resource", "delete", "Orders")
    await shell.json("connector", "delete", "office-1")
    assert await shell.json("network", "delete", "office") == {"ok": True}
    assert await shell.json("network", "list") == []


# ---- secrets


async def test_a_key_alone_is_on_stdout(shell: Shell) -> None:
    await shell.ok("service", "create", "ci")
    for options in ([], ["--json"]):
        result = await shell.ok("service", "key", "generate", "ci", *options)
        made = parse_key_file(result.stdout.encode())
        assert "PRIVATE KEY" not in result.stderr
        assert "the only time" in result.stderr
        assert made.network == shell.running.config.public_url.removeprefix("https://")
    assert len(await shell.json("service", "key", "list", "ci")) == 2
    assert "PRIVATE KEY" not in (await shell.ok("service", "key", "list", "--json")).output


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["for people", "json"])
@pytest.mark.parametrize(
    ("words", "secret"),
    [(["service", "key", "generate", "ci"], "private_key"), (["connector", "tokens", "office-1"], "access_token")],
    ids=["service key", "connector tokens"],
)
async def test_with_out_a_secret_is_only_in_a_file_of_its_owner(
    shell: Shell, tmp_path: Path, words: list[str], secret: str, options: list[str]
) -> None:
    await furnish(shell)
    out = tmp_path / "secret.json"
    before = os.umask(0)  # also where everybody may read new files
    try:
        result = await shell.ok(*words, "--out", str(out), *options)
    finally:
        os.umask(before)
    document = json.loads(out.read_text())
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    for line in document[secret].strip().splitlines():
        assert line not in result.output
    if options:
        json.loads(result.stdout)
    else:
        assert (result.stdout, str(out) in result.stderr) == ("", True)

    text = out.read_text()
    counted = len(await shell.json("service", "key", "list"))
    again = await shell.process(*words, "--out", str(out))
    assert (again.code, again.stdout, out.read_text()) == (80, "", text)
    assert "is there already" in again.stderr
    assert len(await shell.json("service", "key", "list")) == counted, "a key was made that nobody has"


async def test_nothing_is_left_when_no_key_was_made(shell: Shell, tmp_path: Path) -> None:
    await shell.ok("service", "create", "ci")
    out = tmp_path / "key.json"
    for words in (["ci", "--days", "9999"], ["nobody"]):
        assert (await shell.run("service", "key", "generate", *words, "--out", str(out))).exit_code != 0
        assert not out.exists()
    (tmp_path / "link.json").symlink_to(out)
    refused = await shell.process("service", "key", "generate", "ci", "--out", str(tmp_path / "link.json"))
    assert refused.code == 80, "a link somebody else made was followed"
    missing = await shell.process("service", "key", "generate", "ci", "--out", str(tmp_path / "no" / "key.json"))
    assert (missing.code, str(tmp_path / "no") in missing.stderr) == (2, True)
    assert await shell.json("service", "key", "list") == []


# ---- errors

#: (words, environment, exit code, code word, what the lines must say, the next step among it).
REFUSALS: list[tuple[list[str], dict[str, str], int, str, tuple[str, ...]]] = [
    (["network", "list"], {"without": "KLINKET_URL"}, 2, "invalid-input", ("which controller?", "set KLINKET_URL")),
    (["network", "list"], {"without": "KLINKET_API_TOKEN"}, 2, "invalid-input", ("no API token", "set KLINKET_API_TOKEN")),
    (["network", "list"], {"KLINKET_URL": "http://127.0.0.1"}, 2, "invalid-input", ("not an https URL", "set KLINKET_URL")),
    (["network", "list"], {"KLINKET_CA": "/nowhere/ca.pem"}, 2, "invalid-input", ("/nowhere/ca.pem",)),
    (["network", "list"], {"KLINKET_API_TOKEN": "kl_api_nonsense"}, 65, "authentication-failed", ("KLINKET_API_TOKEN",)),
    (["network", "list"], {"without": "KLINKET_CA"}, 74, "controller-unreachable", ("does not prove who it is", "KLINKET_CA")),
    (
        ["network", "list"],
        {"KLINKET_URL": f"https://127.0.0.1:{free_port()}"},
        74,
        "controller-unreachable",
        ("cannot reach", "check KLINKET_URL"),
    ),
    (["network", "create", "office"], {}, 80, "conflict", ("this name exists already",)),
    (["network", "delete", "office"], {}, 80, "conflict", ("1 connectors and 1 resources", "delete these first")),
    (["network", "show", "nowhere"], {}, 81, "not-found", ("nowhere", "list")),
    (["connector", "create", "--network", "nowhere"], {}, 81, "not-found", ("nowhere", "list")),
    (["connector", "tokens", "nobody"], {}, 81, "not-found", ("nobody", "list")),
    (["service", "grant", "ci", "Nothing"], {}, 81, "not-found", ("Nothing", "list")),
    (["service", "grant", "nobody", "Orders"], {}, 81, "not-found", ("nobody", "list")),
    (["service", "grant", "ci", "Orders", "--expires", "tomorrow"], {}, 2, "invalid-input", ("--expires", "tomorrow", "2027-")),
    (
        ["service", "grant", "ci", "Orders", "--expires", "2020-01-01"],
        {},
        2,
        "invalid-input",
        ("--expires", "1 hour to 1 year ahead"),
    ),
    (["service", "key", "revoke", "ci", "nothing"], {}, 81, "not-found", ("nothing", "list")),
    (["service", "key", "delete", "ci", "runner"], {}, 80, "conflict", ("revoke",)),
    (["cut", "show", "99"], {}, 81, "not-found", ("Cut with id '99' does not exist\n",)),
    (
        ["resource", "create", "--network", "office", "--address", "10.0.0.5/24", "X"],
        {},
        2,
        "invalid-input",
        ("--address", "10.0.0.0/24"),
    ),
    (["resource", "update", "Orders", "--tcp", "9-5"], {}, 2, "invalid-input", ("--tcp", "9-5")),
    (["resource", "update", "Orders", "--udp", "0"], {}, 2, "invalid-input", ("--udp",)),
    (["resource", "update", "Orders", "--tcp", "70000"], {}, 2, "invalid-input", ("--tcp",)),
    (["resource", "update", "Orders"], {}, 2, "invalid-input", ("nothing to change", "--help")),
]


async def test_each_refusal_has_its_code_its_word_and_the_next_step(shell: Shell) -> None:
    await furnish(shell)
    wrong = []
    for words, environment, code, word, says in REFUSALS:
        given = dict(environment)
        ended = await shell.process(*words, without=given.pop("without", ""), **given)
        first, *further = ended.stderr.splitlines()
        told = all(part in ended.stderr for part in says)
        formed = first.startswith(f"klinket: {word}: ") and all(line.startswith("  hint: ") for line in further)
        if (ended.code, ended.stdout, formed, told) != (code, "", True, True):
            wrong.append((words, says, ended))
    assert not wrong, "\n".join(str(one) for one in wrong)


async def test_a_token_that_may_not_is_told_which_scope_it_lacks(shell: Shell) -> None:
    await furnish(shell)
    only_read = shell.running.tokens["read",]
    listed = await shell.process("service", "list", "--json", KLINKET_API_TOKEN=only_read)
    assert (listed.code, json.loads(listed.stdout)[0]["name"]) == (0, "ci")
    refused = await shell.process("service", "create", "other", KLINKET_API_TOKEN=only_read)
    assert refused.code == 65
    assert "klinket: forbidden: " in refused.stderr
    assert "scope" in refused.stderr
    assert only_read not in refused.stderr


@pytest.mark.parametrize("words", [["network"], ["network", "create"], ["nonsense"], ["network", "list", "--nonsense"]])
async def test_wrong_usage_is_2_and_shows_the_usage(shell: Shell, words: list[str]) -> None:
    ended = await shell.process(*words)
    assert (ended.code, ended.stdout) == (2, "")
    assert "Usage: klinket admin" in ended.stderr
