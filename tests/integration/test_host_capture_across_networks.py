"""A captured machine with no route to the private network: unmodified programs reach what was granted, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.deployment import Deployment
from tests.integration.topology import HIDDEN, PRIVATE, PUBLIC, Topology

ROOT = Path(__file__).parents[2]
PLACES = {"controller": "middle", "admin": "middle"} | dict.fromkeys(("dns", "files"), "services")
FILE_BYTES = 64 << 20

pytestmark = [
    pytest.mark.root,
    pytest.mark.alone,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root for namespaces"),
]


@dataclass
class World:
    topology: Topology
    deployment: Deployment
    process: subprocess.Popen[str]
    log: Path
    digest: str

    def program(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run an unmodified program on the captured machine."""
        where = self.topology.prefix("client")
        return subprocess.run([*where, *command], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    directory = Path(tempfile.mkdtemp(prefix="klinket-captured-"))
    directory.chmod(0o755)
    try:
        with Topology(directory) as topology:
            enter = lambda part: list(topology.prefix(PLACES.get(part, "client" if part == "client" else "private")))  # noqa: E731
            with Deployment(directory, address=PUBLIC, network="acme", enter=enter) as deployment:
                made = build(deployment, topology, directory)
                yield made
                if made.process.poll() is None:
                    made.process.kill()
                    made.process.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def build(deployment: Deployment, topology: Topology, directory: Path) -> World:
    names = ["-m", "tests.integration.private_services", PRIVATE, f"files.corp.internal={PRIVATE}"]
    deployment.start("dns", [sys.executable, *names], PYTHONPATH=str(ROOT))
    files = directory / "files"
    files.mkdir()
    (files / "small.txt").write_text("behind the gate\n")
    (files / "big").write_bytes(os.urandom(FILE_BYTES))
    digest = subprocess.run(["sha256sum", files / "big"], capture_output=True, text=True).stdout.split()[0]
    deployment.start("files", [sys.executable, "-m", "http.server", "--bind", PRIVATE, "--directory", str(files), "8080"])
    deployment.start_controller()
    deployment.admin("network", "create", "corp")
    deployment.add_connector("corp", "corp-1")
    for name, address, options in (
        ("Files", "files.corp.internal", ["--alias", "files.alias.internal", "--tcp", "8080,8081"]),
        ("Names", PRIVATE, []),
        ("Nowhere", "nowhere.corp.internal", []),
    ):
        deployment.admin("resource", "create", "--network", "corp", "--address", address, *options, name)
    deployment.start_connector("corp-1")
    deployment.admin("service", "create", "machines")
    for name in ("Files", "Names", "Nowhere"):
        deployment.admin("service", "grant", "machines", name)
    key = deployment.add_key("machines", "server")
    log = directory / "capture.err"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*topology.prefix("client"), sys.executable, "-m", "tests.integration.capturing_client", str(key)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "online\n", log.read_text()
    return World(topology, deployment, process, log, digest)


@pytest.mark.parametrize("host", ["files.corp.internal", "files.alias.internal", PRIVATE])
def test_curl_reaches_a_resource_by_name_alias_and_address(world: World, host: str) -> None:
    done = world.program("curl", "-sS", "--fail", "--max-time", "20", f"http://{host}:8080/small.txt")
    assert (done.returncode, done.stdout) == (0, "behind the gate\n"), done.stderr


def test_a_large_file_arrives_unaltered(world: World) -> None:
    done = world.program("sh", "-c", "curl -sS --fail http://files.corp.internal:8080/big | sha256sum")
    assert done.stdout.split()[0] == world.digest, done.stderr


def test_a_dns_server_that_was_granted_answers_over_udp(world: World) -> None:
    done = world.program("busybox", "nslookup", "-type=a", "files.corp.internal", PRIVATE)
    assert f"Address: {PRIVATE}" in done.stdout, done.stderr


def test_what_was_not_granted_stays_out_of_reach(world: World) -> None:
    done = world.program("curl", "-sS", "--max-time", "3", f"http://{HIDDEN}:8080/")
    assert done.returncode in (7, 28), done.stderr


def test_a_closed_port_a_port_not_granted_and_an_unknown_name_are_told_apart(world: World) -> None:
    for port, word in ((8081, "refused"), (9999, "not-granted")):
        done = world.program("curl", "-sS", "--max-time", "10", f"http://files.corp.internal:{port}/")
        assert done.returncode == 7, done.stderr
        assert f"klinket: files.corp.internal:{port}: {word}" in world.log.read_text()
    done = world.program("curl", "-sS", "--max-time", "10", "http://nowhere.corp.internal:80/")
    assert done.returncode == 7
    assert "klinket: nowhere.corp.internal:80: name-not-found" in world.log.read_text()


def test_a_grant_that_is_made_and_ended_is_followed(world: World) -> None:
    world.deployment.admin("resource", "create", "--network", "corp", "--address", "10.91.3.0/24", "Range")
    world.deployment.admin("service", "grant", "machines", "Range")
    script = f"curl -sS --fail --max-time 20 --retry 20 --retry-delay 1 --retry-all-errors http://{PRIVATE}:8080/small.txt"
    assert world.program("sh", "-c", script).returncode == 0
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        world.program("curl", "-sS", "--max-time", "5", f"http://{HIDDEN}:8080/")
        if f"{HIDDEN}:8080: refused" in world.log.read_text():
            break  # captured now; nothing listens there
        time.sleep(0.3)
    assert f"{HIDDEN}:8080: refused" in world.log.read_text()
    world.deployment.admin("service", "ungrant", "machines", "Range")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and f"{HIDDEN}:8080: not-granted" not in world.log.read_text():
        world.program("curl", "-sS", "--max-time", "5", f"http://{HIDDEN}:8080/")
        time.sleep(0.3)
    assert f"{HIDDEN}:8080: not-granted" in world.log.read_text()


def test_a_stop_leaves_nothing(world: World) -> None:
    world.process.communicate("", timeout=30)
    assert world.process.returncode == 0, world.log.read_text()
    assert world.program("nft", "list", "ruleset").stdout == ""
    assert "2750" not in world.program("ip", "rule").stdout
    done = world.program("curl", "-sS", "--max-time", "3", "http://files.corp.internal:8080/")
    assert done.returncode == 6, "no such name"
