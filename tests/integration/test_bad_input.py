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
import tempfile
import time
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from examples.deployment import KLINKET, Deployment, DeploymentError, clean_environment, free_port
from klinket.net.certificate_request import certificate_request
from klinket.wire import assertion, signing
from klinket.wire.key_file import parse_key_file
from tests.integration.conftest import ECHO_ADDRESS, ECHO_NAME, Loopback, ProxyRefused
from tests.integration.evidence import Evidence

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

#: Takes connections of nobody: nothing listens there.
REFUSING = "127.77.0.31"
#: Its backlog is full, so that it never answers a SYN.
SILENT = "127.77.0.32"
UNKNOWN_NAME = "nobody-has-this.invalid"
#: Third byte of the network with hosts that are down, so that two runs do not meet.
_TAG = os.getpid() % 250
#: Nobody answers ARP requests for it.
DOWN_NEAR = f"10.94.{_TAG}.9"
#: Its packets leave for a machine that is not there, as those to a host behind a router do.
DOWN_FAR = f"10.94.{_TAG}.10"
SLOW = (SILENT, DOWN_NEAR, DOWN_FAR)


@dataclass(frozen=True)
class Outcome:
    """What the person or program saw. `names`: what the row's evidence must name; `secrets`: what nobody may write down.

    `evidence`: where to look, if not from the beginning of the act on.
    """

    text: str
    exit_code: int | None = None
    names: dict[str, object] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    evidence: Evidence | None = None


@dataclass
class Scene:
    """A running klinket, a second controller with a key of its own, and dials that take long, begun early."""

    world: Loopback
    other: Deployment
    other_key: Path
    slow: dict[str, Future[Outcome]]


@dataclass(frozen=True)
class Row:
    """One kind of bad input. `says`: words that tell what is wrong and what to do.

    `evidence`: (source, words of one line): audit, flows, the log of a part, or `other` for the second controller's log.
    """

    name: str
    act: Callable[[Scene], Outcome]
    word: str
    says: tuple[str, ...]
    evidence: tuple[tuple[str, ...], ...]
    exit_code: int | None = None


@pytest.fixture(scope="module")
def scene(loopback: Loopback) -> Iterator[Scene]:
    """Start the second controller, and what takes long, beside the first."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="klinket-other-"))
        other = stack.enter_context(Deployment(Path(directory), network="other-net"))
        other.start_controller()
        other.admin("service", "create", "ci")
        slow: dict[str, Future[Outcome]] = {}
        pool = stack.enter_context(ThreadPoolExecutor(len(SLOW)))
        if os.geteuid() == 0:
            stack.enter_context(hosts_that_are_down())
        for host in SLOW if os.geteuid() == 0 else (SILENT,):
            grant(loopback, host)
        for host in SLOW:
            slow[host] = pool.submit(dial_slowly, loopback, host)
        yield Scene(loopback, other, other.add_key("ci", "elsewhere"), slow)


@contextmanager
def hosts_that_are_down() -> Iterator[None]:
    """Make a network of this machine in which only its own address is alive."""
    link = f"klkn{_TAG}"
    commands = (
        f"link add {link} type veth peer name {link}p", f"addr add 10.94.{_TAG}.1/24 dev {link}",
        f"link set {link} up", f"link set {link}p up",
        f"neigh add {DOWN_FAR} lladdr 02:00:00:00:00:01 dev {link} nud permanent",
    )  # fmt: skip
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["ip", "link", "del", link], capture_output=True)


# ---- key files


def key_document(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def pem_lines(document: dict[str, Any]) -> tuple[str, ...]:
    """Return the lines of a private key that say something of it."""
    return tuple(document["private_key"].strip().splitlines()[1:-1])


def write_key(scene: Scene, content: str) -> Path:
    path = scene.world.deployment.directory / "bad.json"
    path.write_text(content)
    return path


def run_with(scene: Scene, content: str, **names: object) -> Outcome:
    """Run a job with a key file of this content; it must not run."""
    done = scene.world.run("echo", "it ran", key=write_key(scene, content))
    assert "it ran" not in done.stdout
    return Outcome(done.stderr, done.returncode, names)


def unreadable(alter: Callable[[str], str]) -> Callable[[Scene], Outcome]:
    """Return an act with a key file that never reaches a controller: the log line is the client's own."""

    def act(scene: Scene) -> Outcome:
        content = alter(scene.world.key.read_text())
        before = Evidence(scene.world.deployment)
        outcome = run_with(scene, content)
        command = [*KLINKET, "client", "--key-file", str(write_key(scene, content)), "--socks", f"127.0.0.1:{free_port()}"]
        daemon = scene.world.deployment.start("daemon", command)
        assert daemon.process is not None
        assert daemon.process.wait(30) == outcome.exit_code
        assert "login" not in before.log("controller"), "a key that cannot be read was sent to the controller"
        assert before.audit() == ""
        return outcome

    return act


def with_broken_pem(text: str) -> str:
    document = json.loads(text)
    return json.dumps(document | {"private_key": document["private_key"].replace("\n", " ")[:120]})


def foreign_key(scene: Scene) -> Outcome:
    """A whole, valid key that another controller made, shown to this one."""
    here, foreign = key_document(scene.world.key), key_document(scene.other_key)
    content = foreign | {"network": here["network"], "controller_ca": here["controller_ca"]}
    outcome = run_with(scene, json.dumps(content), kid=foreign["key_id"])
    return Outcome(outcome.text, outcome.exit_code, outcome.names, pem_lines(foreign))


def key_led_elsewhere(scene: Scene) -> Outcome:
    """This controller's key whose file names another network, with its authority: the other controller knows no such key."""
    here, foreign = key_document(scene.world.key), key_document(scene.other_key)
    content = here | {"network": foreign["network"], "controller_ca": foreign["controller_ca"]}
    return run_with(scene, json.dumps(content), kid=here["key_id"])


def key_led_to_a_stranger(scene: Scene) -> Outcome:
    """This controller's key whose file names another network, but not its authority: nothing is told to the stranger."""
    here, foreign = key_document(scene.world.key), key_document(scene.other_key)
    before = Evidence(scene.other)
    path = write_key(scene, json.dumps(here | {"network": foreign["network"]}))
    done = scene.world.run("echo", "it ran", key=path, options=["--timeout", "1"])
    assert "it ran" not in done.stdout
    assert here["key_id"] not in before.everything()
    return said_by_a_daemon(scene, path, Outcome(done.stderr, done.returncode, {"network": foreign["network"]}))


def said_by_a_daemon(scene: Scene, path: Path, outcome: Outcome) -> Outcome:
    """Let a `klinket client` try the same until it has said so in its log."""
    evidence = Evidence(scene.world.deployment)
    command = [*KLINKET, "client", "--key-file", str(path), "--socks", f"127.0.0.1:{free_port()}"]
    daemon = scene.world.deployment.start("daemon", command)
    try:
        evidence.wait_for("daemon", "trying again")
    finally:
        daemon.stop()
    return outcome


def wrong_key(scene: Scene) -> Outcome:
    pem = signing.private_key_to_pem(signing.generate_private_key())
    document = key_document(scene.world.key) | {"private_key": pem}
    outcome = run_with(scene, json.dumps(document), kid=document["key_id"], key="runner")
    return Outcome(outcome.text, outcome.exit_code, outcome.names, pem_lines(document))


def ended_key(name: str, *commands: str) -> Callable[[Scene], Outcome]:
    """Return an act with a key of its own that was ended by these commands."""

    def act(scene: Scene) -> Outcome:
        key = scene.world.deployment.add_key("ci", name)
        for command in commands:
            scene.world.deployment.admin("service", "key", command, "ci", name)
        return run_with(scene, key.read_text(), kid=key_document(key)["key_id"], key=name)

    return act


def expired(scene: Scene) -> Outcome:
    key = scene.world.deployment.add_key("ci", "bad-expired")
    with closing(sqlite3.connect(scene.world.deployment.state / "klinket.db", timeout=10)) as database:
        yesterday = round((time.time() - 86_400) * 1000)
        database.execute("update service_keys set expires_at_ms = ? where name = 'bad-expired'", (yesterday,))
        database.commit()
    return run_with(scene, key.read_text(), kid=key_document(key)["key_id"], key="bad-expired")


def unreachable_controller(scene: Scene) -> Outcome:
    document = key_document(scene.world.key) | {"network": f"127.0.0.1:{free_port()}"}
    path = write_key(scene, json.dumps(document))
    done = scene.world.run("echo", "it ran", key=path, options=["--timeout", "1"])
    assert "it ran" not in done.stdout
    return said_by_a_daemon(scene, path, Outcome(done.stderr, done.returncode, {"network": document["network"]}))


# ---- logins by hand


def login(*, audience: str | None = None, age: float = 0.0, times: int = 1, unknown: bool = False) -> Callable[[Scene], Outcome]:
    """Return an act that posts an assertion as a client would, with something wrong; the last answer counts."""

    def act(scene: Scene) -> Outcome:
        key_file = parse_key_file(scene.world.key.read_bytes())
        kid = "key-nobody-has-made-this" if unknown else key_file.key_id
        session_key = signing.generate_private_key()
        token = assertion.sign_assertion(
            signing.SigningKey(kid, key_file.private_key),
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
        statuses = []
        answer = ""
        for _ in range(times):
            status, answer = post(scene, key_file.login_url, body)
            statuses.append(status)
        assert statuses == [*[200] * (times - 1), 401], answer
        answered = json.loads(answer)
        assert answered["hint"], "the answer does not say what to do"
        return Outcome(
            f"{answered['code']}: {answered['message']} ({answered['hint']})", None, {"kid": kid, "key": "runner"}, (token,)
        )

    return act


def post(scene: Scene, url: str, body: object, **headers: str) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=str(scene.world.deployment.authority))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# ---- connectors and the Admin API


def dead_tokens(scene: Scene) -> Outcome:
    """Tokens of a connector that were replaced by newer ones."""
    deployment = scene.world.deployment
    deployment.add_connector("office", "office-dead")
    tokens = deployment.directory / "office-dead.json"
    old = json.loads(tokens.read_text())
    deployment.admin("connector", "tokens", "office-dead", "--out", str(tokens.with_suffix(".new")))
    state = deployment.directory / "office-dead-state"
    done = subprocess.run(
        [*KLINKET, "connector", "--tokens-file", str(tokens), "--state", str(state)],
        capture_output=True, text=True, env=clean_environment(), timeout=30,
    )  # fmt: skip
    deployment.admin("connector", "delete", "office-dead")
    return Outcome(done.stderr, done.returncode, {}, (old["access_token"], old["refresh_token"]))


CREATE = """mutation($network: ID!, $address: String!, $protocols: ProtocolsInput) {
  resourceCreate(name: "Bad", address: $address, remoteNetworkId: $network, protocols: $protocols) { ok error } }"""


def resource(address: str, *options: str, first: int = 1, last: int = 65_535) -> Callable[[Scene], Outcome]:
    """Return an act that tries to make a resource, by command and past it by the API; no resource is made."""

    def act(scene: Scene) -> Outcome:
        deployment = scene.world.deployment
        before = deployment.admin("resource", "list")
        with pytest.raises(DeploymentError) as refused:
            deployment.admin("resource", "create", "--network", "office", "--address", address, *options, "Bad")
        network = deployment.admin("network", "show", "office")["id"]
        tcp = {"policy": "RESTRICTED", "ports": [{"start": first, "end": last}]}
        protocols = {"allowIcmp": True, "tcp": tcp, "udp": {"policy": "ALLOW_ALL", "ports": []}}
        body = {"query": CREATE, "variables": {"network": network, "address": address, "protocols": protocols}}
        status, text = post(scene, f"{deployment.url}/api/graphql/", body, **{"X-API-KEY": deployment.api_token})
        answer = json.loads(text)["data"]["resourceCreate"]
        assert (status, answer["ok"]) == (200, False)
        assert answer["error"], "the API does not say what is wrong"
        assert deployment.admin("resource", "list") == before
        told = str(refused.value)
        return Outcome(f"{told} API: {answer['error']}", int(told.partition("exit ")[2].split()[0]))

    return act


# ---- flows


def refused_flow(world: Loopback, host: str, port: int) -> Outcome:
    """Dial a granted address through the SOCKS proxy and keep its answer with the client's line on it."""
    evidence = Evidence(world.deployment)
    with pytest.raises(ProxyRefused) as refused:
        world.dial(host, port, 30.0)
    line = evidence.wait_for("client", f"{host}:{port}")
    return Outcome(f"{line}\nSOCKS reply {refused.value.reply}", None, {"host": host, "port": port}, (), evidence)


def dial(host: str, port: int | None = None) -> Callable[[Scene], Outcome]:
    """Return an act that dials a granted address."""

    def act(scene: Scene) -> Outcome:
        grant(scene.world, host)
        return refused_flow(scene.world, host, port or free_port(host))

    return act


def dial_slowly(world: Loopback, host: str) -> Outcome:
    port = free_port(SILENT)
    if host != SILENT:
        return refused_flow(world, host, port)
    with silent(port):
        return refused_flow(world, host, port)


def slow(host: str) -> Callable[[Scene], Outcome]:
    """Return an act that waits for a dial that was begun at the start."""

    def act(scene: Scene) -> Outcome:
        if host != SILENT and os.geteuid() != 0:
            pytest.skip("needs root to make a network")
        return scene.slow[host].result(60)

    return act


def ungranted_port(scene: Scene) -> Outcome:
    return refused_flow(scene.world, ECHO_NAME, 22)


def grant(world: Loopback, address: str) -> None:
    """Grant every port of an address, once."""
    if not any(row["name"] == address for row in world.deployment.admin("resource", "list")):
        world.grant("ci", address, address)
        world.wait_until_known(address)


@contextmanager
def silent(port: int) -> Iterator[None]:
    """Listen with a full backlog: further SYNs get no answer."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind((SILENT, port))
        listener.listen(0)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # until one more connection finds no place
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.3)
            try:
                filler.connect((SILENT, port))
            except TimeoutError:
                break
        else:
            raise AssertionError("the backlog does not fill")
        yield


# ---- parts that go away


def part_gone(end: Callable[[Loopback], None], again: Callable[[Loopback], None]) -> Callable[[Scene], Outcome]:
    """Return an act that ends a part while a flow is live: its program sees a reset, never a clean end."""

    def act(scene: Scene) -> Outcome:
        world = scene.world
        flow = world.dial()
        world.echo(flow)
        end(world)
        try:
            flow.settimeout(30)
            while flow.recv(4096):
                pass
            text = "clean end"
        except ConnectionResetError as error:
            text = f"reset: {error.strerror}"
        finally:
            flow.close()
            again(world)
        world.wait_until_reachable()
        return Outcome(text)

    return act


def kill_relay(world: Loopback) -> None:
    os.kill(int((world.deployment.state / "relay" / "relay.pid").read_text()), signal.SIGKILL)


def kill_connector(world: Loopback) -> None:
    world.deployment.parts["office-1"].kill()


def start_connector(world: Loopback) -> None:
    world.deployment.start_connector("office-1")


def controller_gone(scene: Scene) -> Outcome:
    """Live flows go on, and so do new ones while their grant lasts; the client says what it is waiting for."""
    world = scene.world
    with world.dial() as flow:
        world.echo(flow)
        controller = world.deployment.parts["controller"].process
        assert controller is not None
        os.kill(controller.pid, signal.SIGKILL)  # the relay beside it goes on
        controller.wait(10)
        world.echo(flow, b"while the controller is away")
        said = world.run("true", options=["--timeout", "1"]).stderr
        world.deployment.start_controller()
        world.echo(flow, b"and after its return")
    world.wait_until_reachable()
    return Outcome(said)


# ---- the table

REFUSED = ("controller", "login refused: {word}", "{kid}")
AUDITED = ("audit", "refuse ", '"code": "{word}"', '"name": "{key}"')
FAILED = ("flows", "failed {word}", '"{host}"', "{port}")
SAID = ("client", "{host}:{port}", "{word}")
LOCAL = ("daemon", "klinket: {word}:")
API = ("controller", "resourceCreate refused: {word}")

ROWS = [
    Row(
        "truncated key file",
        unreadable(lambda text: text[: len(text) // 2]),
        "service-key-invalid",
        ("truncated", "hint"),
        (LOCAL,),
        65,
    ),
    Row(
        "key file that is not JSON",
        unreadable(lambda _: "network: office\nprivate_key: see vault\n"),
        "service-key-invalid",
        ("not JSON", "hint"),
        (LOCAL,),
        65,
    ),
    Row("key file with a broken PEM", unreadable(with_broken_pem), "service-key-invalid", ("private_key", "hint"), (LOCAL,), 65),
    Row("key of another network", foreign_key, "service-key-unknown", ("hint",), (REFUSED,), 67),
    Row(
        "key whose file names another network",
        key_led_elsewhere,
        "service-key-unknown",
        ("hint",),
        (("other", "login refused: {word}", "{kid}"),),
        67,
    ),
    Row(
        "key whose file names a stranger",
        key_led_to_a_stranger,
        "controller-unreachable",
        ("certificate", "hint"),
        (("daemon", "{network}", "certificate"),),
        74,
    ),
    Row(
        "key with another private key",
        wrong_key,
        "service-key-unknown",
        ("hint",),
        (("controller", "login refused: wrong-signature", "{kid}"), ("audit", "refuse ", "wrong-signature", '"name": "{key}"')),
        67,
    ),
    Row(
        "revoked key", ended_key("bad-revoked", "revoke"), "service-key-revoked", ("bad-revoked", "hint"), (REFUSED, AUDITED), 67
    ),
    Row("deleted key", ended_key("bad-deleted", "revoke", "delete"), "service-key-unknown", ("hint",), (REFUSED,), 67),
    Row("expired key", expired, "service-key-expired", ("bad-expired", "hint"), (REFUSED, AUDITED), 66),
    Row(
        "controller that is not there",
        unreachable_controller,
        "controller-unreachable",
        ("hint", "network"),
        (("daemon", "{network}", "trying again"),),
        74,
    ),
    Row(
        "wrong audience",
        login(audience="https://other.example.com/login"),
        "invalid-token",
        ("audience", "public URL"),
        (REFUSED, AUDITED),
    ),
    Row("old assertion", login(age=120), "assertion-stale", ("clock",), (REFUSED, AUDITED)),
    Row("assertion from the future", login(age=-120), "assertion-stale", ("clock",), (REFUSED, AUDITED)),
    Row("replayed assertion", login(times=2), "assertion-replayed", ("fresh",), (REFUSED, AUDITED)),
    Row("unknown key", login(unknown=True), "service-key-unknown", ("generate a new one",), (REFUSED,)),
    Row(
        "dead connector tokens",
        dead_tokens,
        "connector-tokens-dead",
        ("generate new tokens",),
        (("controller", "enrolment refused: {word}"),),
        82,
    ),
    Row("host bits set", resource("10.0.0.5/24"), "invalid-input", ("--address", "10.0.0.0/24", "API: "), (API,), 2),
    Row("port 0", resource("10.0.0.5", "--tcp", "0", first=0, last=0), "invalid-input", ("port", "API: "), (API,), 2),
    Row(
        "port 70000",
        resource("10.0.0.5", "--tcp", "70000", first=70_000, last=70_000),
        "invalid-input",
        ("port", "API: "),
        (API,),
        2,
    ),
    Row("ports 9-5", resource("10.0.0.5", "--tcp", "9-5", first=9, last=5), "invalid-input", ("port", "API: "), (API,), 2),
    Row("name no resolver knows", dial(UNKNOWN_NAME, 80), "name-not-found", ("SOCKS reply 4", "check"), (SAID, FAILED)),
    Row("host that is down", slow(DOWN_NEAR), "unreachable", ("SOCKS reply 4", "route"), (SAID, FAILED)),
    Row("host that is down, far away", slow(DOWN_FAR), "timed-out", ("SOCKS reply 6", "firewall"), (SAID, FAILED)),
    Row("host that refuses", dial(REFUSING), "refused", ("SOCKS reply 5", "check"), (SAID, FAILED)),
    Row("host that never answers", slow(SILENT), "timed-out", ("SOCKS reply 6", "firewall"), (SAID, FAILED)),
    Row("port not granted", ungranted_port, "not-granted", ("SOCKS reply 2", "ask an admin"), (SAID,)),
    Row(
        "relay gone mid-flow",
        part_gone(kill_relay, lambda _: None),
        "reset",
        ("reset by peer",),
        (("controller", "the relay ended"), ("client", "a flow to 'Echo' by connector office-1 ended early: {word}")),
    ),
    Row(
        "connector gone mid-flow",
        part_gone(kill_connector, start_connector),
        "reset",
        ("reset by peer",),
        (
            ("controller", "connector office-1", "detached"),
            ("client", "a flow to 'Echo' by connector office-1 ended early: {word}"),
        ),
    ),
    Row(
        "controller gone mid-flow", controller_gone, "controller-unreachable", ("hint",), (("client", "live flows go on"),), None
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_input_is_named_logged_and_leaks_nothing(scene: Scene, row: Row) -> None:
    world = scene.world
    here, there = Evidence(world.deployment), Evidence(scene.other)
    outcome = row.act(scene)
    for words in (row.word, *row.says):
        assert words in outcome.text, f"{words!r} is missing: {outcome.text}"
    if row.exit_code is not None:
        assert outcome.exit_code == row.exit_code, outcome.text
    for source, *words in row.evidence:
        named = [text.format(word=row.word, **outcome.names) for text in words]
        if source == "other":
            there.wait_for("controller", *named)
        else:
            (outcome.evidence or here).wait_for(source, *named)
    written = "\n".join([outcome.text, here.everything(), there.everything()])
    assert "Traceback" not in written
    assert "PRIVATE KEY" not in written
    for secret in (*pem_lines(key_document(world.key)), *outcome.secrets):
        assert secret not in written
    world.wait_until_reachable()  # nothing was lost


def test_a_key_pasted_on_one_line_works(loopback: Loopback) -> None:
    document = key_document(loopback.key)
    document["private_key"] = document["private_key"].replace("\n", "\\n")
    for content in (json.dumps(document), json.dumps(document, indent=2).replace("\n", " ")):
        command = [*KLINKET, "run", "--", sys.executable, "-c", "print('it ran')"]
        environment = {**clean_environment(), "KLINKET_SERVICE_KEY": content}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert (done.returncode, done.stdout) == (0, "it ran\n"), done.stderr


def test_the_private_network_is_what_the_tests_think(scene: Scene) -> None:
    """The addresses above mean what the rows say: otherwise their refusals would prove nothing."""
    with socket.create_connection((ECHO_ADDRESS, scene.world.echo_port), timeout=5):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((REFUSING, free_port(REFUSING)), timeout=5)
    port = free_port(SILENT)
    with silent(port), pytest.raises(TimeoutError):
        socket.create_connection((SILENT, port), timeout=0.5)
    if os.geteuid() == 0:
        for host in (DOWN_NEAR, DOWN_FAR):
            with pytest.raises(TimeoutError):
                socket.create_connection((host, 80), timeout=0.5)
