"""Bad input, one row each: a named error that says what to do, an audit or log line, nothing leaked, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from examples.deployment import KLINKET, DeploymentError, clean_environment, free_port
from klinket.net.certificate_request import certificate_request
from klinket.wire import assertion, signing
from klinket.wire.key_file import parse_key_file
from tests.integration.conftest import ECHO_ADDRESS, ECHO_NAME, Loopback, ProxyRefused

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

#: Takes connections of nobody: nothing listens there.
REFUSING = "127.77.0.31"
#: Its backlog is full, so that it never answers a SYN.
SILENT = "127.77.0.32"
#: No machine has it: TCP to it is unreachable at once.
DOWN = "255.255.255.255"
UNKNOWN_NAME = "nobody-has-this.invalid"


@dataclass(frozen=True)
class Outcome:
    """What the person or program saw. `word`: the code word in it; `evidence`: lines of audit or log about it."""

    text: str
    evidence: str
    exit_code: int | None = None


@dataclass(frozen=True)
class Row:
    """One kind of bad input. `says`: words that tell what is wrong and what to do."""

    name: str
    act: Callable[[Loopback], Outcome]
    word: str
    says: tuple[str, ...]
    exit_code: int | None = None
    evidence: tuple[str, ...] = field(default=())


# ---- key files


def key_document(world: Loopback) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(world.key.read_text())
    return document


def run_with(world: Loopback, content: str, name: str = "bad") -> Outcome:
    """Run a job with a key file of this content; it must not run."""
    path = world.deployment.directory / f"{name}.json"
    path.write_text(content)
    done = subprocess.run(
        world.deployment.run_command(path, "echo", "it ran"), capture_output=True, text=True, env=clean_environment(), timeout=60
    )
    assert "it ran" not in done.stdout
    return Outcome(done.stderr, log_of(world, "controller") + audit(world), done.returncode)


def truncated(world: Loopback) -> Outcome:
    text = world.key.read_text()
    return run_with(world, text[: len(text) // 2])


def not_json(world: Loopback) -> Outcome:
    return run_with(world, "network: office\nprivate_key: see vault\n")


def broken_pem(world: Loopback) -> Outcome:
    document = key_document(world)
    document["private_key"] = document["private_key"].replace("\n", " ")[:120]
    return run_with(world, json.dumps(document))


def another_network(world: Loopback) -> Outcome:
    """A key another controller made: this one has never seen its id."""
    document = key_document(world) | {"key_id": "key-00000000000000000000beef"}
    return run_with(world, json.dumps(document))


def wrong_key(world: Loopback) -> Outcome:
    document = key_document(world) | {"private_key": signing.private_key_to_pem(signing.generate_private_key())}
    return run_with(world, json.dumps(document))


def revoked(world: Loopback) -> Outcome:
    key = world.deployment.add_key("ci", "bad-revoked")
    world.deployment.admin("service", "key", "revoke", "ci", "bad-revoked")
    return run_with(world, key.read_text())


def deleted(world: Loopback) -> Outcome:
    key = world.deployment.add_key("ci", "bad-deleted")
    world.deployment.admin("service", "key", "revoke", "ci", "bad-deleted")
    world.deployment.admin("service", "key", "delete", "ci", "bad-deleted")
    return run_with(world, key.read_text())


def expired(world: Loopback) -> Outcome:
    key = world.deployment.add_key("ci", "bad-expired")
    with closing(sqlite3.connect(world.deployment.state / "klinket.db", timeout=10)) as database:
        yesterday = round((time.time() - 86_400) * 1000)
        database.execute("update service_keys set expires_at_ms = ? where name = 'bad-expired'", (yesterday,))
        database.commit()
    return run_with(world, key.read_text())


def unreachable_controller(world: Loopback) -> Outcome:
    document = key_document(world) | {"network": f"127.0.0.1:{free_port()}"}
    path = world.deployment.directory / "elsewhere.json"
    path.write_text(json.dumps(document))
    command = world.deployment.run_command(path, "echo", "it ran", options=["--timeout", "2"])
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=60)
    return Outcome(done.stderr, done.stderr, done.returncode)


# ---- logins by hand


def login(world: Loopback, *, audience: str | None = None, age: float = 0.0, times: int = 1) -> Outcome:
    """Post an assertion as a client would, with something wrong; the last answer counts."""
    key_file = parse_key_file(world.key.read_bytes())
    session_key = signing.generate_private_key()
    token = assertion.sign_assertion(
        signing.SigningKey(key_file.key_id, key_file.private_key),
        key_file.service_account_id,
        audience or key_file.login_url,
        signing.thumbprint(session_key.public_key()),
        now=time.time() - age,
        jti=urlsafe_b64encode(os.urandom(16)).decode(),
    )
    body = {
        "grant_type": assertion.GRANT_TYPE,
        "assertion": token,
        "certificate_request": certificate_request(session_key),
        "client": {"version": "1.0.0", "hostname": "test", "os": "Linux"},
    }
    answer = ""
    for _ in range(times):
        status, answer = post(world, key_file.login_url, body)
    assert status in (400, 401, 403), answer
    assert token not in answer
    evidence = log_of(world, "controller") + audit(world)
    assert token not in evidence
    return Outcome(answer, evidence)


def post(world: Loopback, url: str, body: object) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=str(world.deployment.authority))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# ---- connectors and admin commands


def dead_tokens(world: Loopback) -> Outcome:
    """Tokens of a connector that were replaced by newer ones."""
    deployment = world.deployment
    deployment.add_connector("office", "office-dead")
    tokens = deployment.directory / "office-dead.json"
    old = tokens.read_text()
    deployment.admin("connector", "tokens", "office-dead", "--out", str(tokens.with_suffix(".new")))
    tokens.write_text(old)
    state = deployment.directory / "office-dead-state"
    done = subprocess.run(
        [*KLINKET, "connector", "--tokens-file", str(tokens), "--state", str(state)],
        capture_output=True, text=True, env=clean_environment(), timeout=30,
    )  # fmt: skip
    assert old not in done.stderr
    deployment.admin("connector", "delete", "office-dead")
    return Outcome(done.stderr, done.stderr + log_of(world, "controller"), done.returncode)


def resource(*options: str) -> Callable[[Loopback], Outcome]:
    """Return an act that tries to make a resource and checks that none was made."""

    def act(world: Loopback) -> Outcome:
        before = world.deployment.admin("resource", "list")
        with pytest.raises(DeploymentError) as refused:
            world.deployment.admin("resource", "create", "--network", "office", *options, "Bad")
        assert world.deployment.admin("resource", "list") == before
        text = str(refused.value)
        return Outcome(text, text, int(text.partition("exit ")[2].split()[0]))

    return act


# ---- flows


def dial(address: str, port: int | None = None, timeout: float = 30.0) -> Callable[[Loopback], Outcome]:
    """Return an act that dials a granted address through the SOCKS proxy."""

    def act(world: Loopback) -> Outcome:
        host, number = address, port or free_port(address if address.startswith("127.") else "127.0.0.1")
        grant(world, host)
        with silent(number) if host == SILENT else closing(socket.socket()), pytest.raises(ProxyRefused) as refused:
            world.dial(host, number, timeout)
        lines = [line for line in log_of(world, "client").splitlines() if f"{host}:{number}" in line]
        return Outcome("\n".join([*lines, f"SOCKS reply {refused.value.reply}"]), "\n".join(lines))

    return act


def ungranted_port(world: Loopback) -> Outcome:
    with pytest.raises(ProxyRefused) as refused:
        world.dial(ECHO_NAME, 22)
    lines = [line for line in log_of(world, "client").splitlines() if f"{ECHO_NAME}:22" in line]
    return Outcome("\n".join([*lines, f"SOCKS reply {refused.value.reply}"]), "\n".join(lines))


def grant(world: Loopback, address: str) -> None:
    """Grant every port of an address, once."""
    if any(row["name"] == address for row in world.deployment.admin("resource", "list")):
        return
    world.deployment.admin("resource", "create", "--network", "office", "--address", address, address)
    world.deployment.admin("service", "grant", "ci", address)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            world.dial(address, 1, timeout=0.4).close()
        except ProxyRefused as refused:
            if refused.reply != 2:  # granted: the answer is the target's now
                return
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError(f"{address} was granted, but the client does not know")


@contextmanager
def silent(port: int) -> Iterator[None]:
    """Listen with a full backlog: further SYNs get no answer."""
    with socket.socket() as listener:
        listener.bind((SILENT, port))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex((SILENT, port))
        time.sleep(0.1)
        try:
            yield
        finally:
            for filler in fillers:
                filler.close()


# ---- parts that go away


def part_gone(end: Callable[[Loopback], None], again: Callable[[Loopback], None]) -> Callable[[Loopback], Outcome]:
    """Return an act that ends a part while a flow is live: its program sees a reset, never a clean end."""

    def act(world: Loopback) -> Outcome:
        flow = world.dial()
        world.echo(flow)
        end(world)
        try:
            flow.settimeout(30)
            while flow.recv(4096):
                pass
            text = "clean end"
        except ConnectionResetError:
            text = "reset: the connection was reset"
        finally:
            flow.close()
            again(world)
        world.wait_until_reachable()
        return Outcome(text, log_of(world, "client") + log_of(world, "controller"))

    return act


def kill_relay(world: Loopback) -> None:
    os.kill(int((world.deployment.state / "relay" / "relay.pid").read_text()), signal.SIGKILL)


def kill_connector(world: Loopback) -> None:
    world.deployment.parts["office-1"].kill()


def start_connector(world: Loopback) -> None:
    world.deployment.start_connector("office-1")


def controller_gone(world: Loopback) -> Outcome:
    """Live flows go on, and so do new ones while their grant lasts; the client says what it is waiting for."""
    with world.dial() as flow:
        world.echo(flow)
        os.kill(world.deployment.parts["controller"].pid, signal.SIGKILL)  # the relay beside it goes on
        world.echo(flow, b"while the controller is away")
        deadline = time.monotonic() + 10
        while "controller-unreachable" not in (said := said_by_a_job(world)) and time.monotonic() < deadline:
            time.sleep(0.2)
        world.deployment.start_controller()
        world.echo(flow, b"and after its return")
    world.wait_until_reachable()
    return Outcome(said, log_of(world, "client"))


def said_by_a_job(world: Loopback) -> str:
    command = world.deployment.run_command(world.key, "true", options=["--timeout", "1"])
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=60).stderr


# ---- the table

ROWS = [
    Row("truncated key file", truncated, "service-key-invalid", ("truncated", "hint"), 65),
    Row("key file that is not JSON", not_json, "service-key-invalid", ("not JSON", "hint"), 65),
    Row("key file with a broken PEM", broken_pem, "service-key-invalid", ("private_key", "hint"), 65),
    Row("key of another network", another_network, "service-key-unknown", ("hint",), 67, ("service-key-unknown",)),
    Row("key with another private key", wrong_key, "service-key-unknown", ("hint",), 67, ("login refused",)),
    Row("revoked key", revoked, "service-key-revoked", ("bad-revoked", "hint"), 67, ("refuse", "service-key-revoked")),
    Row("deleted key", deleted, "service-key-unknown", ("hint",), 67, ("login refused", "service-key-unknown")),
    Row("expired key", expired, "service-key-expired", ("bad-expired", "hint"), 66, ("refuse", "service-key-expired")),
    Row("controller that is not there", unreachable_controller, "controller-unreachable", ("hint",), 74),
    Row(
        "wrong audience", lambda w: login(w, audience="https://other.example.com/login"), "invalid", (), None, ("login refused",)
    ),
    Row("old assertion", lambda w: login(w, age=120), "assertion-stale", ("clock",), None, ("login refused: assertion-stale",)),
    Row("replayed assertion", lambda w: login(w, times=2), "assertion-replayed", ("fresh",), None, ("assertion-replayed",)),
    Row("dead connector tokens", dead_tokens, "connector-tokens-dead", ("generate new tokens",), 82, ("connector-tokens-dead",)),
    Row("host bits set", resource("--address", "10.0.0.5/24"), "invalid-input", ("address", "10.0.0.0/24"), 2),
    Row("port 0", resource("--address", "10.0.0.5", "--tcp", "0"), "invalid-input", ("port",), 2),
    Row("port 70000", resource("--address", "10.0.0.5", "--tcp", "70000"), "invalid-input", ("port",), 2),
    Row("ports 9-5", resource("--address", "10.0.0.5", "--tcp", "9-5"), "invalid-input", ("port",), 2),
    Row(
        "name no resolver knows", dial(UNKNOWN_NAME, 80), "name-not-found", ("SOCKS reply 4", "check"), None, ("name-not-found",)
    ),
    Row("host that is down", dial(DOWN, 80), "unreachable", ("SOCKS reply 4",), None, ("unreachable",)),
    Row("host that refuses", dial(REFUSING), "refused", ("SOCKS reply 5",), None, ("refused",)),
    Row("host that never answers", dial(SILENT), "timed-out", ("SOCKS reply 6",), None, ("timed-out",)),
    Row("port not granted", ungranted_port, "not-granted", ("SOCKS reply 2",), None, ("not-granted",)),
    Row("relay gone mid-flow", part_gone(kill_relay, lambda _: None), "reset", (), None, ("relay",)),
    Row("connector gone mid-flow", part_gone(kill_connector, start_connector), "reset", (), None, ("office-1",)),
    Row("controller gone mid-flow", controller_gone, "controller-unreachable", ("hint",), None, ("no live channel",)),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_input_is_named_logged_and_leaks_nothing(loopback: Loopback, row: Row) -> None:
    outcome = row.act(loopback)
    assert row.word in outcome.text
    for words in row.says:
        assert words in outcome.text, f"{words!r} is missing: {outcome.text}"
    if row.exit_code is not None:
        assert outcome.exit_code == row.exit_code, outcome.text
    for words in row.evidence:
        assert words in outcome.evidence, f"no log or audit line holds {words!r}"
    pem_lines = key_document(loopback)["private_key"].strip().splitlines()[1:-1]
    for text in (outcome.text, outcome.evidence):
        assert "Traceback" not in text
        assert "PRIVATE KEY" not in text
        assert not any(line in text for line in pem_lines)
    loopback.wait_until_reachable()  # nothing was lost


def test_a_key_pasted_on_one_line_works(loopback: Loopback) -> None:
    document = key_document(loopback)
    document["private_key"] = document["private_key"].replace("\n", "\\n")
    for content in (json.dumps(document), json.dumps(document, indent=2).replace("\n", " ")):
        command = [*KLINKET, "run", "--", sys.executable, "-c", "print('it ran')"]
        environment = {**clean_environment(), "KLINKET_SERVICE_KEY": content}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert (done.returncode, done.stdout) == (0, "it ran\n"), done.stderr


def log_of(world: Loopback, part: str) -> str:
    return Path(world.deployment.parts[part].log).read_text(errors="replace")


def audit(world: Loopback) -> str:
    """Return the newest audit events as text."""
    with closing(sqlite3.connect(world.deployment.state / "klinket.db", timeout=10)) as database:
        rows = database.execute("select action, actor, targets, detail from audit_events order by id desc limit 20").fetchall()
    return "\n".join(" ".join(str(value) for value in row) for row in rows)


def test_the_private_network_is_what_the_tests_think(loopback: Loopback) -> None:
    """The addresses above mean what the rows say: otherwise their refusals would prove nothing."""
    with socket.create_connection((ECHO_ADDRESS, loopback.echo_port), timeout=5):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((REFUSING, free_port(REFUSING)), timeout=5)
    port = free_port(SILENT)
    with silent(port), pytest.raises(TimeoutError):
        socket.create_connection((SILENT, port), timeout=1)
