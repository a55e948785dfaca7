"""Mistakes at the command line: the same code for the same mistake, its field, and what to do next; never a traceback."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from klinket.cli import main, served
from klinket.cli.main import klinket
from klinket.cli.run import check_wait
from klinket.domain.errors import InvalidInput, KlinketError
from tests.unit.cli.conftest import Admin

CONTROLLER = ["controller", "--network", "acme", "--state", "s", "--public-url"]
AT = ["--network", "office", "--address", "x.y"]
NOUNS = ["network", "connector", "resource", "service", "group", "user", "policy", "device", "token", "sink"]


def outcome(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    """Return the exit code of `klinket WORDS`, and what it says on stderr."""
    monkeypatch.setattr(sys, "argv", ["klinket", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    code = ended.value.code
    return code if isinstance(code, int) else 0, capsys.readouterr().err


@pytest.mark.parametrize("url", ["https://[::1]:99999", "https://[bad", "http://localhost", "https://", "ftp://x"])
def test_a_url_that_is_none_is_named(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLINKET_API_TOKEN", "kl_api_x")
    code, told = outcome(capsys, monkeypatch, "admin", "--url", url, "network", "list")
    assert code == 2
    assert told.startswith(f"klinket: invalid-input: url: not an https URL: {url}")
    assert "set KLINKET_URL to https://HOST:PORT" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["client", "--http-proxy", "junk"], "--http-proxy: not host:port: 'junk'"),
        (["client", "--socks", ":70000"], "--socks: not host:port: ':70000'"),
        (["relay", "--controller", "https://x", "--state", "s", "--listen", ":1"], "--listen: not host:port"),
        (
            ["controller", "--network", "acme", "--state", "s", "--public-url", "https://x", "--listen", "x:70000"],
            "--listen: not",
        ),
        ([*CONTROLLER, "http://x"], "public-url: not an https URL"),
        (["run", "--wait", "", "--", "true"], "--wait: it is empty"),
        (["run", "--wait", "db.internal:0", "--", "true"], "--wait: no port: 0"),
    ],
)
def test_an_option_is_named_with_what_to_write(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLINKET_RELAY_TOKEN", "x")
    code, text = outcome(capsys, monkeypatch, *words)
    assert code == 2
    assert text.startswith(f"klinket: invalid-input: {told}")
    assert "\n  hint: " in text


def test_an_error_nobody_expected_is_told_in_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("klinket.cli.run.check_wait", broken)
    code, told = outcome(capsys, monkeypatch, "run", "--wait", "x", "--", "true")
    assert code == 79
    assert told.splitlines()[0] == "klinket: internal: RuntimeError: broken"
    monkeypatch.setenv(main.TRACEBACK_VARIABLE, "1")
    with pytest.raises(RuntimeError):
        main.main()


def test_an_error_of_the_operating_system_has_a_code_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("controller", "--network", "acme", "--state", "/proc/nope", "--public-url", "https://x")
    code, told = outcome(capsys, monkeypatch, *words)
    assert code == 79
    assert told.startswith("klinket: internal: No such file or directory: /proc/nope")


@pytest.mark.parametrize(
    "text", ["db", "db.internal:5432", "[fd00::1]:443", "fd00::1", "fd00::0", "Orders database", "*.internal"]
)
def test_what_can_be_waited_for(text: str) -> None:
    check_wait(text)


@pytest.mark.parametrize("text", ["", "  ", "x:0", "x:65536", "x:999999999", ":5432", "[fd00::1]:0"])
def test_what_cannot_be_waited_for(text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_wait(text)
    assert raised.value.field == "--wait"


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["network", "create", ""], "NAME"),
        (["network", "create", "x" * 300], "NAME"),
        (["service", "create", "a\nb"], "NAME"),
        (["service", "grant", "ci", "Database", "--expires", "tomorrow"], "--expires"),
        (["service", "grant", "ci", "Database", "--expires", "2020-01-01"], "--expires"),
        (["resource", "create", "x", *AT[:3], "a b"], "--address"),
        (["resource", "create", "x", *AT, "--alias", "nodot"], "--alias"),
        (["resource", "create", "x", *AT, "--tcp", ""], "--tcp"),
        (["resource", "create", "x", *AT, "--tcp", "80,"], "--tcp"),
        (["resource", "create", "x", *AT, "--tag", "novalue"], "--tag"),
        (
            ["resource", "create", "x", *AT, "--access-policy", "auto-lock"],
            "--access-policy",
        ),
        (["resource", "update", "Database", "--address", "a b"], "--address"),
        (["resource", "update", "Database", "--alias", "nodot"], "--alias"),
        (["resource", "update", "Database", "--udp", "0"], "--udp"),
        (["service", "key", "generate", "ci", "--days", "366"], "--days"),
        (["service", "key", "generate", "ci", "--days", "-1"], "--days"),
        (["token", "create", "x", "--days", "366"], "--days"),
        (["service", "key", "list", "--expiring", "soon"], "--expiring"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60],
)
async def test_a_value_that_breaks_a_rule_is_invalid_input_everywhere(admin: Admin, words: list[str], field: str) -> None:
    await admin.running.add_resource(await admin.running.add_network())
    await admin.running.add_account("ci")
    code, told = await admin.fails(*words)
    assert code == 2, told
    assert field in told


async def test_an_empty_part_of_ports_is_shown(admin: Admin) -> None:
    _, told = await admin.fails("resource", "create", "x", *AT, "--tcp", "80,")
    assert "empty part in '80,'" in told


async def test_two_objects_of_one_name_are_announced(admin: Admin) -> None:
    await admin.running.add_network()
    words = ("resource", "create", "db", "--network", "office", "--address", "db.internal")
    assert "with this name" not in await admin.ok(*words)
    assert "there are now 2 with this name: name them by id" in await admin.ok(*words)
    code, told = await admin.fails("resource", "show", "db")
    assert code == 80
    assert "give the id instead of the name" in told


@pytest.mark.parametrize(
    "noun", ["network", "connector", "resource", "service", "group", "user", "policy", "device", "token", "sink"]
)
async def test_what_does_not_exist_is_called_by_its_name_with_where_to_look(admin: Admin, noun: str) -> None:
    code, told = await admin.fails(noun, "show", "nobody@example.com")
    assert code == 81
    assert "'nobody@example.com' does not exist" in told
    assert f"klinket admin {noun} list" in told


async def test_connections_that_cannot_be_say_what_to_set(admin: Admin, tmp_path: Path) -> None:
    port = admin.running.config.listen.port
    admin.environment["KLINKET_URL"] = f"https://localhost:{port}"
    code, told = await admin.fails("network", "list")
    assert code == 74
    assert "the certificate is for another name: set KLINKET_URL" in told
    admin.environment["KLINKET_URL"] = admin.running.config.public_url
    admin.environment["KLINKET_CA"] = "/nonexistent"
    code, told = await admin.fails("network", "list")
    assert code == 2
    assert "set KLINKET_CA" in told
    del admin.environment["KLINKET_CA"]
    code, told = await admin.fails("network", "list")
    assert code == 74
    assert "set KLINKET_CA" in told


def test_a_port_without_tls_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        result = CliRunner().invoke(klinket, ["admin", "--url", url, "network", "list"], env={"KLINKET_API_TOKEN": "x"})
        thread.join(timeout=10)
    assert isinstance(result.exception, KlinketError)
    assert "does not speak TLS" in result.exception.message
    assert "plain HTTP" in result.exception.hint


def test_a_state_folder_keeps_its_network(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    served.remember(tmp_path / "state", "acme", "https://a.example.com")
    served.remember(tmp_path / "state", "acme", "https://a.example.com")
    assert not caplog.records
    with pytest.raises(InvalidInput) as raised:
        served.remember(tmp_path / "state", "acne", "https://a.example.com")
    assert raised.value.field == "--network"
    served.remember(tmp_path / "state", "acme", "https://b.example.com")
    assert "--public-url was https://a.example.com" in caplog.text
    (tmp_path / "state" / served.FILE_NAME).write_text("{")
    served.remember(tmp_path / "state", "acme", "https://b.example.com")


def completed(words: str, environment: dict[str, str]) -> list[str]:
    """Return what bash is offered for the last of these words."""
    parts = words.split(" ")
    asked = {"_KLINKET_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(parts) - 1)}
    code = "from klinket.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment, **asked},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


async def test_tab_completion_knows_names_and_keys(admin: Admin) -> None:
    await admin.running.add_network("office")
    await admin.running.add_key(await admin.running.add_account("ci"))
    asked = (
        "klinket admin network show of",
        "klinket admin service key revoke ci ru",
        "klinket admin connector create --network o",
    )
    found = [await asyncio.to_thread(completed, words, admin.environment) for words in asked]
    assert found == [["plain,office"], ["plain,runner"], ["plain,office"]]


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "https://[bad", ""])
def test_tab_completion_is_silent_when_nobody_answers(url: str) -> None:
    assert completed("klinket admin network show of", {"KLINKET_URL": url, "KLINKET_API_TOKEN": "x"}) == []


@pytest.mark.parametrize(
    "words", ["klinket run --key-file x", "klinket client --key-file x", "klinket revoke --key-file x", "klinket admin --ca x"]
)
def test_tab_completion_lists_files(words: str) -> None:
    assert completed(words, {}) == ["file,x"]
