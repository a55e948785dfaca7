"""Real processes as who watches them sees them: metrics of a job's bytes, readiness with reasons, and what the doctor says."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.deployment import KLINKET, Deployment, clean_environment, free_port
from tests.integration.watched import metric, wait_until

pytestmark = pytest.mark.timeout(180)
BYTES = 300_000
#: A private service on one port: it takes all a client sends and says how much that was.
SERVICE = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def serve(sock):
    count = 0
    while data := sock.recv(65536):
        count += len(data)
    sock.sendall(b"%d\\n" % count)
    sock.close()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
JOB = f"""
import socket, sys
sock = socket.create_connection(("private.internal", int(sys.argv[1])), 20)
sock.sendall(b"x" * {BYTES})
sock.shutdown(socket.SHUT_WR)
assert sock.recv(100) == b"{BYTES}\\n"
"""


class World:
    """A deployment whose parts are watched. `ports`: of metrics, by part."""

    def __init__(self, directory: Path) -> None:
        self.deployment = Deployment(directory)
        self.ports = {"controller": free_port(), "relay": free_port(), "office-1": free_port()}
        self.service = free_port()

    def start(self) -> None:
        made = self.deployment
        made.start_controller("--metrics", f"127.0.0.1:{self.ports['controller']}")
        made.start_relay("relay", f"127.0.0.1:{free_port()}", KLINKET_METRICS=f"127.0.0.1:{self.ports['relay']}")
        wait_until(lambda: self.ready("relay")[0] == 200, "the relay is not ready", 30)
        made.start("service", [sys.executable, "-c", SERVICE, str(self.service)])
        made.admin("network", "create", "office")
        made.add_connector("office", "office-1")
        made.start_connector("office-1", TWINGATE_METRICS_PORT=str(self.ports["office-1"]))
        made.admin(
            "resource", "create", "Private", "--network", "office", "--address", "127.0.0.1", "--alias", "private.internal"
        )
        made.admin("service", "create", "ci")
        made.admin("service", "grant", "ci", "Private")
        self.key = made.add_key("ci", "k")

    def get(self, part: str, path: str) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.ports[part]}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self, part: str) -> tuple[int, list[str]]:
        status, text = self.get(part, "/ready")
        return status, [one["code"] for one in json.loads(text or "{}").get("reasons", [])]

    def metric(self, part: str, name: str) -> float:
        """Return the sum of all lines that begin so."""
        return metric(self.ports[part], name)

    def doctor(self, *options: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [*KLINKET, "doctor", "--json", *options],
            capture_output=True, text=True, env=clean_environment(), timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("observed"))
    with made.deployment:
        made.start()
        yield made


def outcomes(document: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["outcome"] for one in document["checks"]}


def test_what_a_job_moves_is_seen_at_its_connector_and_relay(world: World) -> None:
    before = world.metric("office-1", 'klinket_connector_bytes_total{direction="from_clients"')
    job = world.deployment.run_command(world.key, sys.executable, "-c", JOB, str(world.service))
    done = subprocess.run(job, capture_output=True, text=True, env=clean_environment(), timeout=90, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    after = world.metric("office-1", 'klinket_connector_bytes_total{direction="from_clients"')
    assert after - before == BYTES
    assert world.metric("office-1", "twingate_inbound_bytes_total") == after
    assert world.metric("office-1", 'twingate_outbound_bytes_total{transport="relay"}') == len(f"{BYTES}\n")
    assert world.metric("controller", 'klinket_logins_total{outcome="accepted"}') >= 1
    assert world.metric("controller", 'klinket_attached_peers{role="relay"}') == 2
    assert world.metric("relay", "klinket_relay_admissions_total") >= 1


def test_every_part_is_live_and_ready(world: World) -> None:
    for part in world.ports:
        assert world.get(part, "/live")[0] == 200
        wait_until(lambda part=part: world.ready(part) == (200, []), f"{part} is not ready", 20)
        assert world.metric(part, "klinket_ready") == 1


def test_curl_scrapes_every_role(world: World, tmp_path: Path) -> None:
    port = world.ports["client"] = free_port()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "service_key.json").write_bytes(world.key.read_bytes())
    (tmp_path / "etc" / "service_key.json").chmod(0o600)
    folders = {f"KLINKET_{name.upper()}": str(tmp_path / name) for name in ("etc", "run", "state", "log")}
    daemon = [*KLINKET, "daemon", "--capture", "off", "--metrics", f"127.0.0.1:{port}"]
    part = world.deployment.start("daemon", daemon, **folders)
    try:
        own = {"controller": "logins_total", "relay": "relay_admissions_total"}
        own |= {"office-1": "connector_flows", "client": "client_flows"}
        for role, name in own.items():
            wait_until(lambda role=role: world.ready(role)[0] == 200, f"{role} is not ready", 30)
            asked = ["curl", "-sS", "-i", f"http://127.0.0.1:{world.ports[role]}/metrics"]
            done = subprocess.run(asked, capture_output=True, text=True, timeout=20, env=clean_environment(), check=True)
            head, _, body = done.stdout.replace("\r", "").partition("\n\n")
            assert head.startswith("HTTP/1.1 200")
            assert "Content-Type: text/plain; version=" in head
            assert f"\n# TYPE klinket_{name} " in body, role
    finally:
        part.stop()
        del world.ports["client"]


@pytest.mark.parametrize("role", ["controller", "relay", "connector", "client"])
def test_the_doctor_finds_nothing_wrong_where_nothing_is(world: World, role: str) -> None:
    made = world.deployment
    (made.directory / "relay").chmod(0o700)
    options = {
        "controller": [
            "--url", made.url, "--state", str(made.state), "--listen", f"127.0.0.1:{made.port}",
            "--metrics", f"127.0.0.1:{world.ports['controller']}",
        ],
        "relay": ["--url", made.url, "--ca", str(made.authority), "--state", str(made.directory / "relay")],
        "connector": ["--tokens-file", str(made.directory / "office-1.json"), "--state", str(made.directory / "office-1")],
        "client": ["--key-file", str(world.key)],
    }[role]  # fmt: skip
    code, found = world.doctor("--role", role, *options)
    named = outcomes(found)
    assert (code, found["fail"]) == (0, 0), found
    assert {"versions", "packages", "dns", "port", "certificate", "answer", "clock", "controller-ready"} <= named.keys()
    assert role != "controller" or named["ready"] == "ok"
    assert role == "client" or {"state", "disk"} <= named.keys()
    assert role not in ("controller", "relay") or "certificate-file" in named


def test_the_doctor_says_what_is_wrong_and_what_to_do(world: World) -> None:
    made = world.deployment
    code, found = world.doctor("--role", "relay", "--url", made.url)
    assert code == 1
    (wrong,) = [one for one in found["checks"] if one["outcome"] == "fail"]
    assert wrong["name"] == "certificate"
    assert "--ca" in wrong["next"]
    code, found = world.doctor("--role", "relay", "--url", f"https://127.0.0.1:{free_port()}", "--state", "/nonexistent")
    assert (code, outcomes(found)["port"], outcomes(found)["state"]) == (1, "fail", "fail")
    assert "answer" not in outcomes(found), "what cannot be reached is not asked"


def test_without_its_controller_a_part_is_live_and_says_why_it_is_not_ready(world: World) -> None:
    made = world.deployment
    made.parts["controller"].stop()
    for part in ("relay", "office-1"):
        wait_until(lambda part=part: "not-attached" in world.ready(part)[1], f"{part} does not notice", 30)
        assert world.get(part, "/live")[0] == 200
        assert world.metric(part, "klinket_ready") == 0
    made.start_controller()
    for part in ("relay", "office-1"):
        wait_until(lambda part=part: world.ready(part)[0] == 200, f"{part} is not ready again", 60)
