"""How `klinket run` ends: a code and a code word for each failure of its own, the command's own code and signals else."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.deployment import clean_environment, free_port
from klinket.domain.account_limits import DEFAULTS
from tests.integration.conftest import ECHO_NAME, Loopback
from tests.integration.test_bad_input import REFUSING, SILENT, UNKNOWN_NAME, silent
from tests.integration.watched import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

#: Runs what follows where no user namespace can be made: the limit counts in the namespace it is set in.
NO_NAMESPACES = (
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"',
    "sh",
)
#: Says that it is there, the name of each signal it gets, and ends at the second.
TRAPPING = """import signal, sys, time
heard = []
def hear(number, _):
    heard.append(number)
    print(signal.Signals(number).name, flush=True)
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), hear)
print("here", flush=True)
while len(heard) < len(sys.argv) - 1:
    time.sleep(0.01)
sys.exit(21)
"""


@dataclass(frozen=True)
class Way:
    """How `klinket run` is called. `key`: None for the module's own."""

    key: Path | None = None
    options: Sequence[str] = ()
    prefix: Sequence[str] = ()
    command: Sequence[str] = ("echo", "it ran")


@dataclass
class Scene:
    world: Loopback

    def key(self, name: str, account: str = "ci") -> Path:
        return self.world.deployment.add_key(account, name)

    def account(self, name: str) -> Path:
        self.world.deployment.admin("service", "create", name)
        return self.key("key", name)

    def write_key(self, name: str, content: str) -> Path:
        path = self.world.deployment.directory / name
        path.write_text(content)
        return path


@pytest.fixture(scope="module")
def scene(loopback: Loopback) -> Scene:
    """Grant the account what refuses, never answers, has no name, and leads to where a connector leads nobody."""
    loopback.grant("ci", "Refuses", REFUSING)
    loopback.grant("ci", "Silent", SILENT)
    loopback.grant("ci", "Gone", UNKNOWN_NAME)
    loopback.grant("ci", "Inside", "localhost")
    return Scene(loopback)


# ---- one row each


def truncated(scene: Scene) -> Way:
    return Way(scene.write_key("truncated.json", scene.world.key.read_text()[:200]))


def absent(scene: Scene) -> Way:
    return Way(scene.world.deployment.directory / "nobody-wrote-this.json")


def ended(name: str, *commands: str) -> Callable[[Scene], Way]:
    def way(scene: Scene) -> Way:
        key = scene.key(name)
        for command in commands:
            scene.world.deployment.admin("service", "key", command, "ci", name)
        return Way(key)

    return way


def expired(scene: Scene) -> Way:
    key = scene.key("expired")
    with closing(sqlite3.connect(scene.world.deployment.state / "klinket.db", timeout=10)) as database:
        yesterday = round((time.time() - 86_400) * 1000)
        database.execute("update service_keys set expires_at_ms = ? where name = 'expired'", (yesterday,))
        database.commit()
    return Way(key)


def waiting_for(wanted: str, *options: str) -> Callable[[Scene], Way]:
    return lambda _: Way(options=["--wait", wanted, *options])


def silent_resource(_: Scene) -> Way:
    return Way(options=["--wait", f"{SILENT}:{SILENT_PORT}", "--timeout", "2"])


def no_connector(scene: Scene) -> Way:
    """A granted network whose only connector was never started."""
    admin = scene.world.deployment.admin
    key = scene.account("stranded")
    admin("network", "create", "island")
    admin("connector", "create", "--network", "island", "island-1")
    admin("resource", "create", "--network", "island", "--address", "10.1.2.3", "Hut")
    admin("service", "grant", "stranded", "Hut")
    return Way(key, ["--timeout", "2"])


def throttled(scene: Scene) -> Way:
    key = scene.account("eager")
    take_every_session(scene.world, "eager")
    return Way(key, ["--timeout", "1"])


def take_every_session(world: Loopback, account: str) -> None:
    """Give an account as many live sessions as it may have; logging in as often would take a minute."""
    with closing(sqlite3.connect(world.deployment.state / "klinket.db", timeout=10)) as database:
        database.executemany(
            "insert into sessions (id, created_at_ms, service_account_id, service_key_id, jkt, hostname, client_version, address)"
            " select ?, ?, service_account_id, id, ?, '', '', '' from service_keys"
            " where service_account_id = (select id from service_accounts where name = ?)",
            [(f"{account}-{n}", round(time.time() * 1000), f"{account}-{n}", account) for n in range(DEFAULTS.max_sessions)],
        )
        database.commit()


def unreachable_controller(scene: Scene) -> Way:
    document = json.loads(scene.world.key.read_text()) | {"network": f"127.0.0.1:{free_port()}"}
    return Way(scene.write_key("unreachable.json", json.dumps(document)), ["--timeout", "1"])


SILENT_PORT = free_port(SILENT)
#: (code, code word, what is called, words of the line or its hint).
ROWS: list[tuple[int, str, Callable[[Scene], Way], str]] = [
    (65, "service-key-invalid", truncated, "truncated"),
    (65, "service-key-invalid", absent, "cannot be read"),
    (66, "service-key-expired", expired, "hint"),
    (67, "service-key-revoked", ended("revoked", "revoke"), "'revoked'"),
    (67, "service-key-unknown", ended("deleted", "revoke", "delete"), "hint"),
    (68, "not-granted", waiting_for("nobody.internal"), "nobody.internal"),
    (68, "not-granted", waiting_for(f"{ECHO_NAME}:22"), "port 22"),
    (69, "no-connector", no_connector, "'Hut'"),
    (70, "name-not-found", waiting_for(f"{UNKNOWN_NAME}:80", "--timeout", "1"), UNKNOWN_NAME),
    (71, "refused", waiting_for(f"{REFUSING}:1", "--timeout", "1"), REFUSING),
    (72, "timed-out", silent_resource, SILENT),
    (73, "throttled", throttled, "eager"),
    (74, "controller-unreachable", unreachable_controller, "hint"),
    (75, "capture-impossible", lambda _: Way(prefix=NO_NAMESPACES, options=["--capture", "namespace"]), "max_user_namespaces>0"),
    (88, "address-forbidden", waiting_for("localhost:80", "--timeout", "1"), "localhost"),
    (2, "invalid-input", lambda _: Way(options=["--timeout", "0"]), "--timeout"),
    (126, "", lambda scene: Way(command=[str(scene.world.key)]), "Permission denied"),
    (127, "", lambda _: Way(command=["nobody-has-this-command"]), "nobody-has-this-command"),
]


@pytest.mark.parametrize(("code", "word", "way", "says"), ROWS, ids=[f"{row[0]} {row[1]} {row[3]}" for row in ROWS])
def test_each_failure_has_its_code_and_says_its_word_and_nothing_ran(
    scene: Scene, code: int, word: str, way: Callable[[Scene], Way], says: str
) -> None:
    called = way(scene)
    with silent(SILENT_PORT):
        done = scene.world.run(*called.command, key=called.key, options=called.options, prefix=called.prefix)
    assert done.returncode == code, done.stderr
    assert done.stdout == "", "the command ran"
    line = next((line for line in done.stderr.splitlines() if line.startswith(f"klinket: {word}")), "")
    assert word in line, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    no_session_is_left(scene.world, called.key or scene.world.key)


def no_session_is_left(world: Loopback, key: Path) -> None:
    """Wait until all sessions of a key have ended, but for the one of the module's own client, and those made by hand."""
    try:
        kid = json.loads(key.read_text())["key_id"]
    except (OSError, ValueError):
        return
    live = {"ci-runner.json": 1, "unreachable.json": 1, "eager-key.json": DEFAULTS.max_sessions}.get(key.name, 0)
    wait_until(lambda: sessions(world, kid) == live, f"{sessions(world, kid)} sessions of {key.name} live")


def sessions(world: Loopback, kid: str) -> int:
    query = (
        "select count(*) from sessions join service_keys on service_keys.id = service_key_id"
        " where kid = ? and sessions.ended_at_ms is null"
    )
    with closing(sqlite3.connect(world.deployment.state / "klinket.db", timeout=10)) as database:
        return int(database.execute(query, (kid,)).fetchone()[0])


# ---- options

#: What klinket says of this deployment, whose services are on loopback, and of its key, which is in a file.
NOTICES = re.compile(
    r"klinket: the resource '\w+' is at 127\.77\.0\.\d+, which is the command's own machine: .* alias.*"
    r"|klinket: with proxy variables the command can read the key file \S+/ci-runner\.json"
    r"|  give the key as KLINKET_SERVICE_KEY or with --key-file - .*"
)


def unexpected(stderr: str) -> list[str]:
    """Return the lines that are none of the notices."""
    return [line for line in stderr.splitlines() if not NOTICES.fullmatch(line)]


def test_a_key_from_standard_input_or_the_environment_is_not_the_commands(scene: Scene) -> None:
    text = scene.world.key.read_text()
    show = ["sh", "-c", "cat; env | grep -c -e KLINKET_SERVICE_KEY -e 'PRIVATE KEY'"]
    command = scene.world.deployment.run_command(Path("-"), *show)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, env=clean_environment())
    assert (done.returncode, done.stdout) == (1, "0\n"), done.stderr  # grep -c ends with 1 for none
    command = [word for word in command if word not in ("--key-file", "-")]
    environment = {**clean_environment(), "KLINKET_SERVICE_KEY": text}
    done = subprocess.run(command, input="mine\n", capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout) == (1, "mine\n0\n"), done.stderr


def test_wait_by_name_alias_or_address_and_several_begins_when_all_answer(scene: Scene) -> None:
    options = ["--wait", "Echo", "--wait", ECHO_NAME, "--wait", f"{ECHO_NAME}:{scene.world.echo_port}", "--wait", "Gone"]
    done = scene.world.run("echo", "it ran", options=options)
    assert (done.returncode, done.stdout, unexpected(done.stderr)) == (0, "it ran\n", [])


def test_where_namespaces_are_forbidden_it_says_so_and_goes_on_with_proxy_variables(scene: Scene) -> None:
    fetch = "import os, urllib.parse; print(urllib.parse.urlsplit(os.environ['HTTPS_PROXY']).hostname)"
    done = scene.world.run(sys.executable, "-c", fetch, prefix=NO_NAMESPACES)
    assert (done.returncode, done.stdout) == (0, "127.0.0.1\n"), done.stderr
    assert "klinket: capture-impossible: " in done.stderr
    assert "going on with proxy variables" in done.stderr


# ---- the command's own ending, and signals


@pytest.mark.parametrize("capture", ["namespace", "proxy"])
def test_the_commands_own_ending_is_passed_on_and_the_session_ends(scene: Scene, capture: str) -> None:
    for script, code in (("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)):
        done = scene.world.run("sh", "-c", script, options=["--capture", capture])
        assert (done.returncode, unexpected(done.stderr)) == (code, []), script
    no_session_is_left(scene.world, scene.world.key)


@contextmanager
def running(scene: Scene, *command: str, options: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    job = subprocess.Popen(
        scene.world.deployment.run_command(scene.world.key, *command, options=options),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip
    try:
        yield job
    finally:
        job.kill()
        job.communicate()


@pytest.mark.parametrize("capture", ["namespace", "proxy"])
def test_signals_are_passed_on_and_the_command_decides(scene: Scene, capture: str) -> None:
    names = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"]
    with running(scene, sys.executable, "-c", TRAPPING, *names, options=["--capture", capture]) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "here\n"
        for name in names:
            job.send_signal(getattr(signal, name))
            assert job.stdout.readline() == f"{name}\n"
        assert job.wait(10) == 21
    no_session_is_left(scene.world, scene.world.key)


@pytest.mark.parametrize("capture", ["namespace", "proxy"])
def test_a_signal_that_ends_the_command_is_its_code(scene: Scene, capture: str) -> None:
    with running(scene, "sh", "-c", "echo here; exec sleep 60", options=["--capture", capture]) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "here\n"
        job.send_signal(signal.SIGTERM)
        assert job.wait(10) == 128 + signal.SIGTERM
    no_session_is_left(scene.world, scene.world.key)


def test_a_signal_while_it_waits_ends_it_and_the_command_never_runs(scene: Scene) -> None:
    with running(scene, "echo", "it ran", options=["--wait", f"{REFUSING}:1"]) as job:
        assert job.stderr is not None
        told = [job.stderr.readline()]
        while not unexpected(told[-1]):
            assert told[-1], "klinket ended"
            told.append(job.stderr.readline())
        assert "waiting: " in told[-1]
        job.send_signal(signal.SIGTERM)
        output, _ = job.communicate(timeout=10)
    assert (job.returncode, output) == (128 + signal.SIGTERM, "")
    no_session_is_left(scene.world, scene.world.key)


@pytest.mark.parametrize("capture", ["namespace", "proxy"])
def test_the_command_does_not_outlive_klinket(scene: Scene, capture: str) -> None:
    with running(scene, "sh", "-c", "echo $$; exec sleep 61.25", options=["--capture", capture]) as job:
        assert job.stdout is not None
        assert job.stdout.readline()
        wait_until(lambda: sleepers() == 1, "the command does not run")  # the shell has yet to become it
        job.kill()
        job.wait(10)
        wait_until(lambda: sleepers() == 0, "the command goes on without klinket")


def sleepers() -> int:
    """Count the commands of the test above; in a namespace of its own the number it knows itself by says nothing here."""
    count = 0
    for entry in Path("/proc").iterdir():
        try:
            count += entry.name.isdigit() and (entry / "cmdline").read_bytes() == b"sleep\x0061.25\x00"
        except OSError:
            continue
    return count


def test_the_table_holds_every_code_of_a_run(scene: Scene) -> None:
    told = {word for _, word, _, _ in ROWS}
    assert {
        "service-key-invalid", "service-key-expired", "service-key-revoked", "not-granted", "no-connector",
        "name-not-found", "refused", "timed-out", "throttled", "controller-unreachable", "capture-impossible",
    } <= told  # fmt: skip
