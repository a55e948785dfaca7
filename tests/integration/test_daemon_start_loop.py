"""The start loop of public CI actions, and what scripts compare, with the command's name replaced (facts §2)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.deployment import free_port
from tests.integration.conftest import ECHO_NAME, Loopback, dial_http
from tests.integration.daemon_commands import DaemonCommands

#: How often the loop runs; 50 shows that none of many starts misses.
ROUNDS = int(os.environ.get("KLINKET_TEST_STARTS", "3"))

pytestmark = pytest.mark.timeout(120 + 12 * ROUNDS)


@pytest.fixture
def commands() -> Iterator[DaemonCommands]:
    with tempfile.TemporaryDirectory(prefix="klinket-daemon-") as directory:
        made = DaemonCommands(Path(directory))
        made.ok("config", "networking", "tun=off", f"http-proxy=127.0.0.1:{free_port()}")
        yield made
        made.run("stop")


def proxy_of(commands: DaemonCommands) -> tuple[str, int]:
    (address,) = json.loads(commands.ok("status", "--json"))["proxies"]
    host, _, port = address.removeprefix("http://").rpartition(":")
    return host, int(port)


def test_the_loop_goes_online_in_its_first_round_each_time(loopback: Loopback, commands: DaemonCommands) -> None:
    key = loopback.key.read_text()
    rounds = []
    for _ in range(ROUNDS):
        commands.ok("setup", "--headless", "-", given=key)
        for number in range(1, 6):
            commands.run("start")
            time.sleep(0.2)  # actions wait 5 s here: `start` has waited already, and what it found has to stay true
            if commands.run("status").stdout == "online\n":
                rounds.append(number)
                break
            commands.run("stop")
        answer, connection = dial_http(proxy_of(commands), ECHO_NAME, loopback.echo_port)
        with connection:
            assert answer.startswith("HTTP/1.1 200")
            loopback.echo(connection)
        commands.ok("stop")
        assert commands.ok("status") == "not-running\n"
    assert rounds == [1] * ROUNDS


def test_start_and_stop_can_be_repeated(loopback: Loopback, commands: DaemonCommands) -> None:
    assert commands.ok("stop") == "klinket is not running\n"
    commands.ok("setup", f"--headless={loopback.key}")
    first = commands.ok("start"), json.loads(commands.ok("status", "--json"))["pid"]
    assert (commands.ok("service-start"), json.loads(commands.ok("status", "--json"))["pid"]) == first
    assert commands.ok("stop") == "klinket is stopped\n"
    assert commands.ok("stop") == "klinket is not running\n"


def test_a_second_daemon_is_refused_and_told_of_the_first(loopback: Loopback, commands: DaemonCommands) -> None:
    commands.ok("setup", "--headless", str(loopback.key))
    commands.ok("start")
    pid = json.loads(commands.ok("status", "--json"))["pid"]
    done = commands.run("daemon")
    assert (done.returncode, f"already (process {pid})" in done.stderr) == (97, True), done
    assert commands.ok("status") == "online\n"


def test_a_daemon_that_was_killed_leaves_nothing_that_keeps_the_next_from_starting(
    loopback: Loopback, commands: DaemonCommands
) -> None:
    commands.ok("setup", "--headless", str(loopback.key))
    commands.ok("start")
    os.kill(json.loads(commands.ok("status", "--json"))["pid"], 9)
    assert commands.ok("status") == "not-running\n"
    assert commands.ok("start") == "online\n"


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (lambda key: "", 65, "it is empty"),
        (lambda key: key[: len(key) // 2], 65, "not JSON"),
        (lambda key: key.replace("BEGIN PRIVATE KEY", "BEGIN PRIVATE KEX"), 65, "private_key"),
        (lambda key: json.dumps({**json.loads(key), "key_id": "nobody"}), 67, "service-key-unknown"),
        (lambda key: json.dumps({**json.loads(key), "expires_at": "2020-01-01T00:00:00+00:00"}), 66, "expired"),
        (lambda key: json.dumps({**json.loads(key), "controller_ca": None}), 74, "does not prove who it is"),
    ],
)
def test_setup_refuses_a_bad_key_says_why_and_keeps_the_former_one(
    change: object, code: int, told: str, loopback: Loopback, commands: DaemonCommands
) -> None:
    commands.ok("setup", "--headless", str(loopback.key))
    kept = (commands.etc / "service_key.json").read_bytes()
    done = commands.run("setup", "--headless", "-", given=change(loopback.key.read_text()))  # type: ignore[operator]
    assert done.returncode == code, done
    assert told in done.stderr
    assert (commands.etc / "service_key.json").read_bytes() == kept


def test_setup_keeps_a_key_for_its_owner_alone_and_says_when_it_could_not_be_checked(
    loopback: Loopback, commands: DaemonCommands
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    away = json.dumps({**json.loads(loopback.key.read_text()), "network": f"127.0.0.1:{port}"})
    done = commands.run("setup", "--headless", "-", given=away)
    assert done.returncode == 0, done
    assert f"not checked with 127.0.0.1:{port}" in done.stderr
    assert (commands.etc / "service_key.json").stat().st_mode & 0o777 == 0o600


def test_a_machine_without_a_key_says_so_in_each_command(commands: DaemonCommands) -> None:
    assert commands.ok("status") == "uninitialized\n"
    assert commands.run("start").returncode == 65
    assert commands.run("daemon").returncode == 65
    assert commands.run("wait", "--timeout", "1").returncode == 95
    assert commands.run("resources").returncode == 95


def test_resources_are_columns_with_tabs(loopback: Loopback, commands: DaemonCommands) -> None:
    commands.ok("setup", "--headless", str(loopback.key))
    commands.ok("start")
    lines = commands.ok("resources", "list").splitlines()
    assert lines[:2] == ["MAIN RESOURCES", "RESOURCE NAME\tADDRESS\tALIAS\tAUTH STATUS"]
    assert [line.split("\t")[:3] for line in lines[2:]] == [["Echo", "127.77.0.30", ECHO_NAME]]
    assert json.loads(commands.ok("resources", "--json"))[0]["alias"] == ECHO_NAME


def test_wait_ends_with_the_code_of_what_is_missing(loopback: Loopback, commands: DaemonCommands) -> None:
    commands.ok("setup", "--headless", str(loopback.key))
    commands.ok("start")
    assert commands.ok("wait", f"{ECHO_NAME}:{loopback.echo_port}", "Echo") == "online\n"
    assert commands.run("wait", "nowhere.internal").returncode == 68
    assert commands.run("wait", f"{ECHO_NAME}:1").returncode == 68


def test_a_key_that_is_revoked_is_a_word_of_its_own_until_another_is_set_up(loopback: Loopback, commands: DaemonCommands) -> None:
    key = loopback.deployment.add_key("ci", "to-be-revoked")
    commands.ok("setup", "--headless", str(key))
    commands.ok("start")
    loopback.deployment.admin("service", "key", "revoke", "ci", "to-be-revoked")
    commands.until("key-revoked")
    assert "online" not in commands.ok("status", "-v").lower()
    assert commands.run("start").returncode == 67
    assert commands.run("wait", "--timeout", "5").returncode == 67
    assert "new flows use the new key" in commands.ok("setup", "--headless", str(loopback.key))
    commands.until("online")


def test_a_report_holds_what_helps_and_no_secret(loopback: Loopback, commands: DaemonCommands, tmp_path: Path) -> None:
    commands.ok("setup", "--headless", str(loopback.key))
    commands.ok("start")
    with commands.log.open("a") as log:
        log.write(loopback.key.read_text() + loopback.deployment.api_token)
    path = tmp_path / "report.zip"
    commands.ok("report", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert json.loads(parts["status.json"])["state"] == "online"
    secret = json.loads(loopback.key.read_text())["private_key"].splitlines()[1]
    assert not [name for name, text in parts.items() if secret in text or loopback.deployment.api_token in text]
    assert json.loads(parts["key.json"])["key_id"] in loopback.key.read_text()
    assert commands.run("report", str(path)).returncode != 0, "a report replaces no file"


def test_other_users_may_read_the_status_and_not_end_the_daemon(loopback: Loopback, commands: DaemonCommands) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    commands.ok("setup", "--headless", str(loopback.key))
    commands.ok("start")
    commands.etc.parent.chmod(0o755)
    nobody = DaemonCommands(commands.etc.parent, ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
    assert nobody.ok("status") == "online\n"
    assert [row["name"] for row in json.loads(nobody.ok("resources", "--json"))] == ["Echo"]
    for words in (["stop"], ["setup", "--headless", str(commands.etc / "service_key.json")], ["config", "log-level", "debug"]):
        done = nobody.run(*words)
        assert done.returncode in (65, 96), done
    assert commands.ok("status") == "online\n"


def test_a_start_does_not_hold_the_shell(loopback: Loopback, commands: DaemonCommands) -> None:
    commands.ok("setup", "--headless", str(loopback.key))
    # A pipe that the daemon kept open would keep the reader waiting for its end.
    done = subprocess.run(
        ["sh", "-c", '"$@" | cat', "sh", *commands.prefix, *DaemonCommands(commands.etc.parent).run("version").args[:3], "start"],
        env=commands.environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.stdout == "online\n"
