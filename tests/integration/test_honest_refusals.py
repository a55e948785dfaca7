"""What a resource says is what the program hears: through SOCKS, through HTTP CONNECT and inside `klinket run`."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.deployment import free_port
from tests.integration.conftest import ECHO_NAME, Loopback, ProxyRefused, dial_http
from tests.integration.evidence import Evidence
from tests.integration.test_bad_input import REFUSING, SILENT, silent
from tests.integration.watched import WatchedService, how_it_ends

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

#: Names of the resources: inside `klinket run` loopback addresses themselves are the command's own.
REFUSES, NEVER_ANSWERS, ORDERS, GONE = "refuses.internal", "silent.internal", "orders.internal", "nobody-has-this.invalid"
ORDERS_ADDRESS = "127.77.0.33"
#: Prints how a connect ended: "connected", or the name of the errno.
CONNECT = """import errno, socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
    print("connected")
except OSError as error:
    print(errno.errorcode.get(error.errno, repr(error)))
"""
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Heard:
    """What a program was told: `answer` in the words of its way, `line`: klinket's own line about it."""

    answer: str
    line: str


@pytest.fixture(scope="module")
def orders_port() -> int:
    return free_port(ORDERS_ADDRESS)


@pytest.fixture(scope="module")
def world(loopback: Loopback, orders_port: int) -> Loopback:
    """A klinket with resources that refuse, never answer, serve HTTP, and have a name nobody knows."""
    service = [sys.executable, str(ROOT / "examples" / "orders_service.py"), ORDERS_ADDRESS, str(orders_port)]
    loopback.deployment.start("orders", service)
    loopback.grant("ci", "Refuses", REFUSING, "--alias", REFUSES)
    loopback.grant("ci", "Silent", SILENT, "--alias", NEVER_ANSWERS)
    loopback.grant("ci", "Orders", ORDERS_ADDRESS, "--alias", ORDERS, "--tcp", str(orders_port))
    loopback.grant("ci", "Gone", GONE)
    loopback.wait_until_known(GONE)
    return loopback


def by_socks(world: Loopback, host: str, port: int) -> Heard:
    evidence = Evidence(world.deployment)
    with pytest.raises(ProxyRefused) as refused:
        world.dial(host, port, 30)
    return Heard(f"reply {refused.value.reply}", evidence.wait_for("client", f"{host}:{port}"))


def by_http(world: Loopback, host: str, port: int) -> Heard:
    evidence = Evidence(world.deployment)
    answer, connection = dial_http(world.http, host, port, 30)
    connection.close()
    fields = answer.split("\r\n")
    word = next(line for line in fields if line.startswith("Klinket-Error: "))
    return Heard(f"{fields[0].split(' ')[1]} {word}", evidence.wait_for("client", f"{host}:{port}"))


def by_run(world: Loopback, host: str, port: int) -> Heard:
    done = world.run(sys.executable, "-c", CONNECT, host, str(port), options=["--capture", "namespace"])
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"klinket: {host}:{port}: ")]
    # A name has an address of each family: a program that waits for one after the other hears of both.
    assert len(set(lines)) <= 1, f"told in several ways: {done.stderr}"
    assert len(lines) <= 2, f"told more than once: {done.stderr}"
    return Heard(done.stdout.strip() or done.stderr, lines[0] if lines else f"nothing on stderr: {done.stderr}")


WAYS: dict[str, Callable[[Loopback, str, int], Heard]] = {"SOCKS": by_socks, "HTTP CONNECT": by_http, "klinket run": by_run}
#: What each way says: (host, word, answers by way).
SAID = [
    (REFUSES, "refused", {"SOCKS": "reply 5", "HTTP CONNECT": "502 Klinket-Error: refused", "klinket run": "ECONNREFUSED"}),
    (
        ECHO_NAME,
        "not-granted",
        {"SOCKS": "reply 2", "HTTP CONNECT": "403 Klinket-Error: not-granted", "klinket run": "ECONNREFUSED"},
    ),
    (
        GONE,
        "name-not-found",
        {"SOCKS": "reply 4", "HTTP CONNECT": "502 Klinket-Error: name-not-found", "klinket run": "EHOSTUNREACH"},
    ),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("host", "word", "answers"), SAID, ids=[said[1] for said in SAID])
def test_a_refusal_is_told_in_the_words_of_each_way(
    world: Loopback, host: str, word: str, answers: dict[str, str], way: str
) -> None:
    heard = WAYS[way](world, host, free_port(REFUSING) if host == REFUSES else 22)
    assert heard.answer == answers[way]
    assert f": {word}: " in heard.line


def test_a_black_hole_times_out_on_every_way(world: Loopback) -> None:
    port = free_port(SILENT)
    with silent(port), ThreadPoolExecutor(3) as pool:  # side by side: each takes as long as a connector dials
        heard = {way: pool.submit(dial, world, NEVER_ANSWERS, port) for way, dial in WAYS.items()}
        answers = {way: future.result(60) for way, future in heard.items()}
    assert {way: one.answer for way, one in answers.items()} == {
        "SOCKS": "reply 6",
        "HTTP CONNECT": "504 Klinket-Error: timed-out",
        "klinket run": "ETIMEDOUT",
    }
    for one in answers.values():
        assert ": timed-out: " in one.line


def test_what_nobody_granted_is_no_business_of_klinkets_inside_run(world: Loopback) -> None:
    """A host that no resource names is dialled past klinket: its refusal is the network's, and klinket says nothing."""
    done = world.run(sys.executable, "-c", CONNECT, "127.77.0.99", "9", options=["--capture", "namespace"])
    assert done.stdout == "ECONNREFUSED\n"
    # That resources of these tests are on loopback is told at the start, whatever the command dials.
    assert [line for line in done.stderr.splitlines() if "which is the command's own machine" not in line] == []


# ---- the HTTP proxy at work


def test_connect_carries_both_ways_and_ends_cleanly(world: Loopback) -> None:
    answer, connection = dial_http(world.http, ECHO_NAME, world.echo_port)
    with connection:
        assert answer.startswith("HTTP/1.1 200 ")
        for size in (1, 1000, 300_000):
            world.echo(connection, b"x" * size)
        connection.shutdown(1)
        assert how_it_ends(connection).how == "end"


def test_a_reset_of_the_resource_is_a_reset_for_the_program(world: Loopback) -> None:
    with socket.create_server((REFUSING, 0)) as server:
        _, connection = dial_http(world.http, REFUSES, server.getsockname()[1])
        with connection:
            accepted, _ = server.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            assert how_it_ends(connection).how == "reset"


def test_programs_use_it_for_plain_http(world: Loopback, orders_port: int) -> None:
    proxy = urllib.request.ProxyHandler({"http": "http://{}:{}".format(*world.http)})
    opener = urllib.request.build_opener(proxy)
    with opener.open(f"http://{ORDERS}:{orders_port}/orders", timeout=20) as answer:
        assert b"gate hinge" in answer.read()
    with pytest.raises(urllib.error.HTTPError) as missing:
        opener.open(f"http://{ORDERS}:{orders_port}/nothing", timeout=20)
    assert missing.value.code == 404  # the origin's own word
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(f"http://{ORDERS}:1/orders", timeout=20)
    assert (refused.value.code, refused.value.headers["Klinket-Error"]) == (403, "not-granted")
    assert b"klinket: not-granted: " in refused.value.read()


def test_curl_speaks_with_it(world: Loopback, orders_port: int) -> None:
    command = [
        "curl",
        "-sS",
        "--proxytunnel",
        "--proxy",
        "http://{}:{}".format(*world.http),
        f"http://{ORDERS}:{orders_port}/orders",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "gate hinge" in done.stdout, done.stderr


def test_garbage_is_answered_with_400_and_opens_nothing(world: Loopback) -> None:
    with WatchedService(REFUSING) as service:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", f"CONNECT {REFUSES}:0 HTTP/1.1\r\n\r\n".encode()):
            with socket.create_connection(world.http, timeout=10) as connection:
                connection.sendall(garbage)
                assert connection.recv(12) == b"HTTP/1.1 400"
        assert service.accepted == 0
