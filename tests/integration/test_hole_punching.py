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

    def works(self) -> bool:
        """Return whether the file can be fetched."""
        try:
            self.fetch()
        except AssertionError:
            return False
        return True

    def start_fetch(self) -> subprocess.Popen[str]:
        url = f"http://127.0.0.1:{FORWARDED}/big"
        command = [*self.topology.prefix("client"), "curl", "-sS", "--fail", "-o", "/dev/null", "--max-time", "60", url]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end_fetch(self, fetching: subprocess.Popen[str]) -> bool:
        """Return whether a fetch ended well."""
        output, _ = fetching.communicate()
        assert not output
        return fetching.returncode == 0

    def explain(self) -> str:
        key = self.deployment.directory / "ci-runner.json"
        command = [sys.executable, "-m", "klinket", "explain", "--key-file", str(key), f"{PRIVATE}:8080"]
        done = subprocess.run([*self.topology.prefix("client"), *command], capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    def path_of_the_last_flow(self) -> str:
        """Return how the connector says the last flow went."""
        lines = self.log("home-1").splitlines()
        return next((line.split('"tunnel_path":"')[1].split('"')[0] for line in reversed(lines) if "tunnel_path" in line), "")

    def relayed(self) -> int:
        """Return the bytes that one fetch has sent to the relay."""
        before = self.topology.counted()
        self.fetch()
        return self.topology.counted() - before

    def log(self, part: str) -> str:
        return self.deployment.parts[part].log.read_text()


@contextmanager
def world(topology: NatTopology, *, controller: Sequence[str] = ()) -> Iterator[World]:
    """Start everything. `controller`: options of it."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="klinket-nat-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.enter_context(topology)
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
        deployment.start_connector("home-1", KLINKET_LOG_ANALYTICS="v2")
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
        part = deployment.start("forward", forward)
        made = World(topology, deployment)

        deployment.wait_for("the forwarded port", made.works, part)
        yield made


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.3)
    return False


@pytest.mark.parametrize("silent", [False, True], ids=["answering", "silent"])
def test_flows_leave_the_relay_where_both_nats_keep_ports(silent: bool) -> None:
    with world(NatTopology(silent=silent)) as made:
        assert eventually(lambda: made.relayed() < FILE_BYTES // 100), made.log("forward") + made.log("home-1")
        assert "is met through the NATs: 16 connections" in made.log("forward")
        before = made.topology.counted()
        many = [made.start_fetch() for _ in range(10)]
        assert [made.end_fetch(one) for one in many] == [True] * 10
        assert made.topology.counted() - before < FILE_BYTES
        assert made.path_of_the_last_flow() == "direct"


def test_more_flows_than_there_are_holes_take_the_relay_as_well() -> None:
    with world(NatTopology()) as made:
        assert eventually(lambda: made.relayed() < FILE_BYTES // 100), made.log("forward") + made.log("home-1")
        many = [made.start_fetch() for _ in range(40)]
        assert [made.end_fetch(one) for one in many] == [True] * 40


def test_where_a_nat_changes_ports_the_relay_carries_on_meanwhile_and_afterwards() -> None:
    with world(NatTopology(fully_random=True)) as made:
        meanwhile = 0
        while "no hole to it opens" not in made.log("forward"):
            assert made.relayed() >= FILE_BYTES
            meanwhile += 1
            assert meanwhile < 1_000
        assert meanwhile > 1
        assert made.relayed() >= FILE_BYTES


def test_the_connector_can_go_and_come_back() -> None:
    with world(NatTopology()) as made:
        assert eventually(lambda: made.relayed() < FILE_BYTES // 100), made.log("forward") + made.log("home-1")
        made.deployment.parts["home-1"].kill()
        made.deployment.start_connector("home-1")
        assert eventually(made.works)


def test_the_controller_can_turn_it_off() -> None:
    with world(NatTopology(), controller=["--no-hole-punching"]) as made:
        begun = time.monotonic()
        while time.monotonic() - begun < 6:  # twice the time after which a link is worth a meeting
            assert made.relayed() >= FILE_BYTES
        assert "NATs" not in made.log("forward")
        assert "hole punching is turned off" in made.explain()


def test_explain_says_that_holes_were_punched() -> None:
    with world(NatTopology()) as made:
        assert "holes through the NATs were punched" in made.explain()
