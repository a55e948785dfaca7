"""The main job between three networks: a command without privileges reaches what its service account was granted."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.deployment import Deployment, clean_environment
from tests.integration.private_services import ORDERS, PostgreSQL, postgres_programs
from tests.integration.topology import HIDDEN, PRIVATE, PUBLIC, Topology

ROOT = Path(__file__).parents[2]
BIG_FILE_BYTES = 1 << 30
#: Where each part runs, but for connectors: those run in private.
PLACES = {"controller": "middle", "admin": "middle"} | dict.fromkeys(("dns", "postgresql", "files", "hidden"), "services")
NAMES = {"db.corp.internal": PRIVATE, "files.corp.internal": PRIVATE, "hidden.corp.internal": HIDDEN}

pytestmark = [
    pytest.mark.root,
    pytest.mark.alone,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make network namespaces"),
    pytest.mark.skipif(postgres_programs() is None, reason="needs PostgreSQL (Debian package postgresql)"),
]


@dataclass
class World:
    """A deployment across the topology, with a key of the service account `ci`."""

    topology: Topology
    deployment: Deployment
    key: Path
    big_file_digest: str

    def job(self, *command: str, key: Path | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command through `klinket run` in the client's network, as a user without any privilege."""
        return subprocess.run(
            self.deployment.run_command(key or self.key, *command),
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd="/",
            env={**clean_environment(), "HOME": "/nonexistent"},
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Everything started once: the tests below only add keys and accounts of their own."""
    directory = Path(tempfile.mkdtemp(prefix="klinket-networks-"))
    directory.chmod(0o755)
    try:
        with Topology(directory) as topology:

            def enter(part: str) -> list[str]:
                if part == "client":
                    return list(topology.prefix_unprivileged("client"))
                where = PLACES.get(part, "private")
                return list(topology.prefix(where))

            with Deployment(directory, address=PUBLIC, network="acme", enter=enter) as deployment:
                yield build(deployment, topology, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def build(deployment: Deployment, topology: Topology, directory: Path) -> World:
    """Start the services of the private network and a klinket that leads to them."""
    names = [f"{name}={address}" for name, address in NAMES.items()]
    deployment.start("dns", [sys.executable, "-m", "tests.integration.private_services", PRIVATE, *names], PYTHONPATH=str(ROOT))
    database = PostgreSQL(directory / "postgresql", PRIVATE, topology.prefix("services"))
    part = deployment.start("postgresql", database.command()[len(topology.prefix("services")) :])
    files = directory / "files"
    files.mkdir()
    digest = write_big_file(files / "big")
    (files / "small.txt").write_text("behind the gate\n")
    serve = [sys.executable, "-m", "http.server", "--bind", PRIVATE, "--directory", str(files), "8080"]
    deployment.start("files", serve)
    deployment.start("hidden", [sys.executable, "-m", "http.server", "--bind", HIDDEN, "8080"])
    deployment.wait_for("PostgreSQL", database.ready, part)
    database.fill()

    deployment.start_controller()
    deployment.admin("network", "create", "corp")
    deployment.add_connector("corp", "corp-1")
    for name, address, ports in (
        ("Database", "db.corp.internal", ["--tcp", "5432"]),
        ("Files", "files.corp.internal", ["--tcp", "8080"]),
        ("Names", PRIVATE, ["--tcp", "none", "--udp", "53"]),
        ("Hidden", "hidden.corp.internal", []),
        ("Nowhere", "nowhere.corp.internal", []),
    ):
        deployment.admin("resource", "create", "--network", "corp", "--address", address, *ports, name)
    deployment.start_connector("corp-1")
    deployment.admin("service", "create", "ci")
    for name in ("Database", "Files", "Names", "Nowhere"):
        deployment.admin("service", "grant", "ci", name)
    return World(topology, deployment, readable(deployment.add_key("ci", "runner")), digest)


def readable(key: Path) -> Path:
    """Hand a key file to the user the jobs run as."""
    os.chown(key, 65534, 65534)
    return key


def write_big_file(path: Path) -> str:
    """Write BIG_FILE_BYTES of random data and return its SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(BIG_FILE_BYTES >> 24):
            block = os.urandom(1 << 24)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def test_no_packet_of_the_client_reaches_the_private_network_without_klinket(world: World) -> None:
    done = subprocess.run(
        [*world.topology.prefix("client"), "curl", "-sS", "--max-time", "3", f"http://{PRIVATE}:8080/"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "unreachable" in done.stderr.lower() or "connect" in done.stderr.lower()


def test_psql_reads_rows_by_a_name_that_only_the_private_side_resolves(world: World) -> None:
    query = "select number, item from orders order by number"
    done = world.job("psql", "-h", "db.corp.internal", "-U", "reader", "-d", "postgres", "-At", "-F", "|", "-c", query)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{number}|{item}" for number, item in ORDERS]


def test_curl_fetches_a_gibibyte_unaltered(world: World) -> None:
    script = "curl -sS --fail http://files.corp.internal:8080/big | sha256sum"
    done = world.job("sh", "-c", script, timeout=120)
    assert done.stdout.split()[0] == world.big_file_digest, done.stderr


def test_a_dns_query_over_udp_to_a_granted_server_is_answered(world: World) -> None:
    done = world.job("busybox", "nslookup", "-type=a", "files.corp.internal", PRIVATE)
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"Address: {PRIVATE}" in done.stdout


def test_a_static_binary_is_captured_too(world: World) -> None:
    done = world.job("busybox", "wget", "-q", "-O", "-", "http://files.corp.internal:8080/small.txt")
    assert (done.returncode, done.stdout) == (0, "behind the gate\n"), done.stderr


def test_a_port_that_was_not_granted_is_refused_and_klinket_says_why(world: World) -> None:
    done = world.job("curl", "-sS", "--max-time", "10", "http://files.corp.internal:9999/")
    assert done.returncode == 7, done.stderr  # curl: could not connect
    assert "klinket: files.corp.internal:9999: not-granted" in done.stderr


def test_a_host_that_was_not_granted_is_not_reached_by_name_nor_by_address(world: World) -> None:
    by_name = world.job("curl", "-sS", "--max-time", "10", "http://hidden.corp.internal:8080/")
    assert by_name.returncode == 6, by_name.stderr  # curl: could not resolve host
    by_address = world.job("curl", "-sS", "--max-time", "5", f"http://{HIDDEN}:8080/")
    assert by_address.returncode in (7, 28), by_address.stderr
    assert by_address.stdout == ""


def test_a_granted_name_that_no_resolver_knows_is_told_as_such(world: World) -> None:
    done = world.job("curl", "-sS", "--max-time", "10", "http://nowhere.corp.internal:8080/")
    assert done.returncode != 0
    assert "klinket: nowhere.corp.internal:8080: name-not-found" in done.stderr


def test_after_revoke_the_same_command_fails_with_the_revoked_exit_code(world: World) -> None:
    key = readable(world.deployment.add_key("ci", "short-lived"))
    fetch = ("curl", "-sS", "--fail", "http://files.corp.internal:8080/small.txt")
    before = world.job(*fetch, key=key)
    assert (before.returncode, before.stdout) == (0, "behind the gate\n"), before.stderr
    world.deployment.admin("service", "key", "revoke", "ci", "short-lived")
    after = world.job(*fetch, key=key)
    assert after.returncode == 67
    assert "service-key-revoked" in after.stderr
    assert after.stdout == ""


def test_the_command_holds_no_capability_and_cannot_see_the_key(world: World) -> None:
    script = f"grep CapEff /proc/self/status; id -u; cat {world.key}; env | grep -c KLINKET_SERVICE_KEY"
    done = world.job("sh", "-c", script)
    lines = done.stdout.splitlines()
    assert lines[0].split()[1] == "0" * 16
    assert lines[1] == "65534"
    assert "PRIVATE KEY" not in done.stdout + done.stderr
    assert lines[-1] == "0"
