"""The main job's figures: bulk via relay, connect+echo, start to first byte of `klinket run`, beside plain TCP."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from bench.command import options
from bench.load import Dial, bulk, connect_and_echo, dial_directly, dial_through_socks
from examples.deployment import Deployment, clean_environment, free_port

PRIVATE_ADDRESS = "127.77.0.20"
NAME = "bench.internal"
ROUNDS = 3
BULK_SECONDS = 3.0
CONNECTS = 300
STARTS = 5
FIRST_BYTE = (
    "import socket,sys,time; s=socket.create_connection((sys.argv[1],int(sys.argv[2])));"
    "s.sendall(b'x'); s.recv(1); print(time.time())"
)


def prepare(deployment: Deployment, port: int) -> tuple[Path, tuple[str, int]]:
    """Bring up everything; return the key file and the address of a client's SOCKS proxy."""
    root = str(Path(__file__).parents[1])
    deployment.start("target", [sys.executable, "-m", "bench.load", PRIVATE_ADDRESS, str(port)], PYTHONPATH=root)
    deployment.start_controller()
    deployment.admin("network", "create", "office")
    deployment.add_connector("office", "office-1")
    deployment.admin("resource", "create", "--network", "office", "--address", PRIVATE_ADDRESS, "--alias", NAME, "Target")
    deployment.start_connector("office-1")
    deployment.admin("service", "create", "bench")
    deployment.admin("service", "grant", "bench", "Target")
    key = deployment.add_key("bench", "bench")
    proxy = ("127.0.0.1", free_port())
    client = deployment.start(
        "client",
        [sys.executable, "-m", "klinket", "client", "--key-file", str(key), "--socks", f"{proxy[0]}:{proxy[1]}"],
    )

    def reached() -> bool:
        try:
            dial_through_socks(proxy, NAME, port)().close()
        except OSError:
            return False
        return True

    deployment.wait_for("the client", reached, client)
    return key, proxy


def percentile(times: Iterable[float], fraction: float) -> float:
    """Return the value below which `fraction` (0 to 1) of the times lie; there is one time at least."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def first_byte(command: list[str]) -> float:
    """Return seconds from starting `command` until its program has the first byte of the echo server."""
    begun = time.time()
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=True)
    return float(done.stdout.split()[-1]) - begun


def cpu_seconds(pid: int) -> float:
    """Return user and system seconds of a process and its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:13]) / 100


def measure() -> dict[str, float]:
    """Run everything, interleaved, and return the medians."""
    results: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        results.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory(prefix="klinket-bench-") as directory, Deployment(Path(directory)) as deployment:
        port = free_port(PRIVATE_ADDRESS)
        key, proxy = prepare(deployment, port)
        paths: dict[str, tuple[Dial, Dial]] = {
            "plain": (dial_directly(PRIVATE_ADDRESS, port), dial_directly(PRIVATE_ADDRESS, port + 1)),
            "klinket": (dial_through_socks(proxy, NAME, port), dial_through_socks(proxy, NAME, port + 1)),
        }
        connect_and_echo(paths["klinket"][0], 50)  # warm
        for number in range(ROUNDS):
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
            for name, (echo, sink) in paths.items():
                for streams in (1, 8):
                    note(f"bulk, {streams} stream(s), Gbit/s: {name}", bulk(sink, streams, BULK_SECONDS))
                times = connect_and_echo(echo, CONNECTS)
                note(f"connect+echo p50, ms: {name}", percentile(times, 0.5))
                note(f"connect+echo p99, ms: {name}", percentile(times, 0.99))
        for _ in range(STARTS):
            program = [sys.executable, "-S", "-c", FIRST_BYTE]
            note("start to first byte, s: plain", first_byte([*program, PRIVATE_ADDRESS, str(port)]))
            note(
                "start to first byte, s: klinket run",
                first_byte(deployment.run_command(key, *program, NAME, str(port))),
            )
    return {name: round(statistics.median(values), 3) for name, values in results.items()}


def main() -> None:
    """Print a table, and JSON with --json."""
    given = options("main_job", __doc__ or "", "--json").parse_args()
    results = measure()
    if given.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{platform.node() and platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}")
    for name, value in results.items():
        print(f"  {name:<50} {value:>10}")
