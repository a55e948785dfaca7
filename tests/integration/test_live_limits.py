"""Limits on a running klinket: sessions beyond a key's seats, and bandwidth that is lowered while a flow runs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.deployment import clean_environment, free_port
from tests.integration.conftest import Loopback
from tests.integration.watched import wait_until

pytestmark = pytest.mark.timeout(240)

ADDRESS = "127.77.0.31"
#: Sends for as long as somebody reads.
SENDER = """
import socket, sys, threading
def send(sock):
    try:
        while True:
            sock.sendall(bytes(65536))
    except OSError:
        pass
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    threading.Thread(target=send, args=(listener.accept()[0],), daemon=True).start()
"""
SLOW = 400_000


def generate(world: Loopback, name: str, *options: str) -> Path:
    path = world.deployment.directory / f"{name}.json"
    world.deployment.admin("service", "key", "generate", "ci", "--name", name, *options, "--out", str(path))
    return path


def holding(world: Loopback, key: Path) -> subprocess.Popen[bytes]:
    """Start a job that holds a session until its standard input ends."""
    script = "import sys; print('in', flush=True); sys.stdin.read()"
    job = subprocess.Popen(
        world.deployment.run_command(key, sys.executable, "-c", script),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment(),
    )  # fmt: skip
    assert job.stdout is not None
    assert job.stdout.readline() == b"in\n"
    return job


def events(world: Loopback, action: str, key: str) -> int:
    found = world.deployment.admin("audit", "list", "--action", action, "--target-type", "serviceAccountKey")
    return sum(event["targets"][0]["name"] == key for event in found)


@pytest.mark.parametrize(("exceeded", "code", "action"), [("refuse", 73, "refuse"), ("alert", 0, "warn")])
def test_a_second_session_of_a_key_with_one_seat(loopback: Loopback, exceeded: str, code: int, action: str) -> None:
    key = generate(loopback, f"seat-{exceeded}", "--seats", "1", "--seats-exceeded", exceeded)
    first = holding(loopback, key)
    try:
        second = loopback.run("true", key=key, options=["--timeout", "10"])
        assert second.returncode == code, second.stderr
        assert ("has one seat" in second.stderr) == (exceeded == "refuse")
        assert events(loopback, action, f"seat-{exceeded}") == 1
        assert first.poll() is None  # who came first stays
    finally:
        first.communicate(timeout=60)
    assert first.returncode == 0
    assert loopback.run("true", key=key).returncode == 0  # the seat is free again


def test_bandwidth_that_is_lowered_holds_for_a_flow_that_runs_and_so_does_a_raise(loopback: Loopback) -> None:
    made, port = loopback.deployment, free_port(ADDRESS)
    made.start("sender", [sys.executable, "-c", SENDER, ADDRESS, str(port)])
    loopback.grant("ci", "Sender", ADDRESS)
    loopback.wait_until_known(ADDRESS, port)
    with loopback.dial(ADDRESS, port) as connection:

        def rate(seconds: float = 1.0) -> float:
            """Read for a while; returns bytes a second."""
            begun, count = time.monotonic(), 0
            while time.monotonic() < begun + seconds:
                count += len(connection.recv(262_144))
            return count / (time.monotonic() - begun)

        wait_until(lambda: rate() > 4 * SLOW, "it is as slow without a limit", 60)
        made.admin("service", "limits", "ci", "--bytes-per-second", str(SLOW))
        wait_until(lambda: rate() < 1.5 * SLOW, "the running flow is as fast as before", 60)
        wait_until(lambda: rate() > 0.3 * SLOW, "the running flow does not go on", 60)
        made.admin("service", "limits", "ci", "--bytes-per-second", "default")
        wait_until(lambda: rate() > 4 * SLOW, "the running flow is as slow as before", 60)
