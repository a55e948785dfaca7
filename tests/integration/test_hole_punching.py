"""Client and connector behind a NAT each: flows leave the relay where the NATs let them, and stay at it where not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from examples.deployment import Deployment
from tests.integration.nat_topology import PRIVATE, PUBLIC, NatTopology

pytestmark = [
    pytest.mark.root,
    pytest.mark.alone,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make network namespaces"),
]

PLACES = {"controller": "internet", "admin": "internet", "client": "client", "forward": "client"}
FILE_BYTES = 4 << 20
#: Seconds a test waits for what must come.
PATIENCE = 60.0
FORWARDED = 18_080


class World:
    """A deployment across two NATs, and a forwarded port at the client that leads to a file behind the connector."""

    def __init__(self, topology: NatTopology, deployment: Deployment) -> None:
        self.topology = topology
        self.deployment = deployment

    def fetch(self) -> float:
        """Fetch the file; returns the seconds it took."""
        begun = time.monotonic()
        done = subprocess.run(
            [*self.topology.prefix("client"), "curl", "-sS", "--fail", "-o", "/dev/null", "-w", "%{size_download}",
             "--max-time", "30", f"http://127.0.0.1:{FORWARDED}/big"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, str(FILE_BYTES)), done.stderr
        return time.monotonic() - begun

    def relayed(self) -> int:
        """Return the bytes that one fetch has sent to the relay."""
        before = self.topology.counted()
        self.fetch()
        return self.topology.counted() - before

    def log(self, part: str) -> str:
        return self.deployment.parts[part].log.read_text()


@contextmanager
def world(
    *, fully_random: bool = False, controller: Sequence[str] = (), connector: dict[str, str] | None = None, **client: str
) -> Iterator[World]:
    """Start everything. `connector`, `client`: variables of theirs."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="klinket-nat-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        topology = stack.enter_context(NatTopology(fully_random=fully_random))
        enter: Callable[[str], list[str]] = lambda part: topology.prefix(PLACES.get(part, "private"))  # noqa: E731
        deployment = stack.enter_context(Deployment(directory, address=PUBLIC, network="acme", enter=enter))
        files = directory / "files"
        files.mkdir()
        (files / "big").write_bytes(os.urandom(FILE_BYTES))
        deployment.start("files", [sys.executable, "-m", "http.server", "--bind", PRIVATE, "--directory", str(files), "8080"])
        deployment.start_controller(*controller)
        deployment.admin("network", "create", "home")
        deployment.add_connector("home", "home-1")
        deployment.admin("resource", "create", "--network", "home", "--address", PRIVATE, "--tcp", "8080", "Files")
        deployment.start_connector("home-1", **(connector or {}))
        deployment.admin("service", "create", "ci")
        deployment.admin("service", "grant", "ci", "Files")
        key = deployment.add_key("ci", "runner")
        topology.count(deployment.relay_port)
        forward = [
            sys.executable,
            "-m",
            "klinket",
            "forward",
            "--key-file",
            str(key),
            "--log-level",
            "info",
            "Files",
            str(FORWARDED),
        ]
        part = deployment.start("forward", forward, **client)
        made = World(topology, deployment)

        def ready() -> bool:
            try:
                made.fetch()
            except AssertionError:
                return False
            return True

        deployment.wait_for("the forwarded port", ready, part)
        yield made


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.3)
    return False


def test_flows_leave_the_relay_where_both_nats_keep_ports() -> None:
    with world() as made:
        assert eventually(lambda: made.relayed() < FILE_BYTES // 100), made.log("forward") + made.log("home-1")
        assert "is met through the NATs" in made.log("forward")


def test_where_a_nat_changes_ports_the_relay_carries_on() -> None:
    with world(fully_random=True) as made:
        assert made.relayed() >= FILE_BYTES
        assert eventually(lambda: made.relayed() >= 0 and "no hole to connector" in made.log("forward"))
        assert made.relayed() >= FILE_BYTES
