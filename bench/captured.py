"""What capture of a whole machine costs: the daemon in a network namespace, the target behind a connector in another one.

Beside it, in the same run: the same client program over the same links without klinket (a route for the measurement), and through
the daemon's own SOCKS proxy, without capture.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from examples.deployment import KLINKET, Deployment, clean_environment, free_port
from tests.integration.topology import PRIVATE, PUBLIC, Topology, sh

ROOT = Path(__file__).parents[1]
NAME = "bench.internal"
PORT = 7100
ROUNDS = 3
BULK_SECONDS = 3.0
CONNECTS = 200
#: Prints JSON: Gbit/s of 1 and 8 streams, connect+echo p50 and p99 in ms. Arguments: host, port, SOCKS port or 0.
PROGRAM = f"""
import json, sys
from bench.load import bulk, connect_and_echo, dial_directly, dial_through_socks
host, port, socks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dial = (lambda p: dial_through_socks(("127.0.0.1", socks), host, p)) if socks else (lambda p: dial_directly(host, p))
connect_and_echo(dial(port), 20)
times = connect_and_echo(dial(port), {CONNECTS})
print(json.dumps([bulk(dial(port + 1), 1, {BULK_SECONDS}), bulk(dial(port + 1), 8, {BULK_SECONDS}),
    times[len(times) // 2], times[int(len(times) * 0.99)]]))
"""
FIGURES = ("bulk, 1 stream, Gbit/s", "bulk, 8 streams, Gbit/s", "connect+echo p50, ms", "connect+echo p99, ms")


def measure_captured(note: Callable[[str, float], None]) -> None:
    """Note the figures of each way."""
    with tempfile.TemporaryDirectory(prefix="klinket-bench-captured-") as name, Topology(Path(name)) as topology:
        directory = Path(name)

        def enter(part: str) -> Sequence[str]:
            return topology.prefix({"controller": "middle", "admin": "middle", "target": "services"}.get(part, "private"))

        with Deployment(directory, address=PUBLIC, enter=enter) as deployment:
            key = _prepare(deployment)
            socks = free_port()
            environment = {
                **clean_environment(),
                **{f"KLINKET_{folder}": str(directory / folder.lower()) for folder in ("ETC", "RUN", "STATE", "LOG")},
                "KLINKET_SOCKS": f"127.0.0.1:{socks}",
                "PYTHONPATH": str(ROOT),
            }

            def inside(*command: str) -> str:
                done = subprocess.run(
                    [*topology.prefix("client"), *command], capture_output=True, text=True, env=environment, cwd="/"
                )
                if done.returncode:
                    raise RuntimeError(f"{command[:4]}: {done.stdout} {done.stderr}")
                return done.stdout

            def note_all(way: str, host: str, proxy: int) -> None:
                values = json.loads(inside(sys.executable, "-c", PROGRAM, host, str(PORT), str(proxy)))
                for figure, value in zip(FIGURES, values, strict=True):
                    note(f"{figure}: {way}", value)

            for _ in range(ROUNDS):
                with _Route(topology):
                    note_all("plain", PRIVATE, 0)
            inside(*KLINKET, "setup", "--headless", str(key))
            try:
                inside(*KLINKET, "start", "--wait", "20")
                inside(*KLINKET, "wait", f"{NAME}:{PORT}")
                for _ in range(ROUNDS):
                    note_all("captured", NAME, 0)
                    note_all("by its SOCKS proxy", NAME, socks)
            finally:
                inside(*KLINKET, "stop")
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                inside(*KLINKET, "start", "--wait", "20")
                note("start to usable, with capture, s", time.perf_counter() - begun)
                begun = time.perf_counter()
                inside(*KLINKET, "stop")
                note("stop, with capture, s", time.perf_counter() - begun)


class _Route:
    """A way from the client's namespace to the services, for as long as it is measured."""

    def __init__(self, topology: Topology) -> None:
        self._names = topology.names

    def _change(self, verb: str) -> None:
        for role, network, gateway in (
            ("client", "10.91.3.0/24", "10.91.1.1"),
            ("middle", "10.91.3.0/24", "10.91.2.2"),
            ("services", "10.91.1.0/24", "10.91.3.1"),
            ("private", "10.91.1.0/24", "10.91.2.1"),
        ):
            sh("ip", "-n", self._names[role], "route", verb, network, "via", gateway)
        for role in ("middle", "private"):
            sh("ip", "netns", "exec", self._names[role], "sysctl", "-qw", f"net.ipv4.ip_forward={int(verb == 'add')}")

    def __enter__(self) -> None:
        self._change("add")

    def __exit__(self, *_: object) -> None:
        self._change("del")


def _prepare(deployment: Deployment) -> Path:
    deployment.start("target", [sys.executable, "-m", "bench.load", PRIVATE, str(PORT)], PYTHONPATH=str(ROOT))
    deployment.start_controller()
    deployment.admin("network", "create", "office")
    deployment.add_connector("office", "office-1")
    deployment.admin("resource", "create", "--network", "office", "--address", PRIVATE, "--alias", NAME, "Target")
    deployment.start_connector("office-1")
    deployment.admin("service", "create", "bench")
    deployment.admin("service", "grant", "bench", "Target")
    return deployment.add_key("bench", "bench")
