"""The client's figures: start to usable, the daemon's commands, what `klinket run` adds, cold and warm.

As root also what capturing a whole machine costs, in network namespaces: bulk and connect+echo through the daemon beside the
same without klinket and without capture, and how long a change takes with 10,000 resources.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.command import options
from bench.main_job import FIRST_BYTE, NAME, PRIVATE_ADDRESS, first_byte
from examples.deployment import KLINKET, Deployment, clean_environment, free_port

STARTS = 5
COMMANDS = 10
RUNS = 5

Note = Callable[[str, float], None]


def daemon_folders(directory: Path) -> dict[str, str]:
    """Return the environment of a daemon of its own, with capture off."""
    return {
        **clean_environment(),
        "KLINKET_ETC": str(directory / "etc"),
        "KLINKET_RUN": str(directory / "run"),
        "KLINKET_STATE": str(directory / "state"),
        "KLINKET_LOG": str(directory / "klinket.log"),
        "KLINKET_TUN": "off",
        "KLINKET_HTTP_PROXY": f"127.0.0.1:{free_port()}",
    }


def seconds_of(environment: Mapping[str, str], *words: str, prints: str | None = None) -> float:
    """Return how long `klinket WORDS` takes; raises where it fails or prints another line than `prints`."""
    begun = time.perf_counter()
    done = subprocess.run([*KLINKET, *words], capture_output=True, text=True, env=dict(environment), stdin=subprocess.DEVNULL)
    took = time.perf_counter() - begun
    if done.returncode or (prints is not None and done.stdout.strip() != prints):
        raise RuntimeError(f"klinket {' '.join(words)}: {done}")
    return took


def measure_daemon(note: Note, directory: Path, key: Path) -> None:
    """Start and stop the daemon several times, and ask it things between."""
    environment = daemon_folders(directory / "daemon")
    note("setup, key checked with the controller, s", seconds_of(environment, "setup", "--headless", str(key)))
    try:
        for _ in range(STARTS):
            note("start to usable, capture off, s", seconds_of(environment, "start", prints="online"))
            for _ in range(COMMANDS):
                note("`klinket status`, s", seconds_of(environment, "status", prints="online"))
            note("memory of the daemon, MB", memory_mb(environment))
            note("stop, s", seconds_of(environment, "stop", prints="klinket is stopped"))
    finally:
        subprocess.run([*KLINKET, "stop"], capture_output=True, env=environment)
    for _ in range(COMMANDS):
        note("`klinket --version`, s", seconds_of(environment, "--version"))


def memory_mb(environment: Mapping[str, str]) -> float:
    """Return the resident memory of the daemon."""
    told = subprocess.run([*KLINKET, "status", "--json"], capture_output=True, text=True, env=dict(environment), check=True)
    status = Path(f"/proc/{json.loads(told.stdout)['pid']}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) / 1024


def measure_run(note: Note, deployment: Deployment, key: Path, port: int, directory: Path) -> None:
    """Measure from starting a program to its first byte: plain, with `klinket run`, and that without any compiled Python."""
    program = [sys.executable, "-S", "-c", FIRST_BYTE]
    command = deployment.run_command(key, *program, NAME, str(port))
    for _ in range(RUNS):
        note("start to first byte, plain, s", first_byte([*program, PRIVATE_ADDRESS, str(port)]))
        note("start to first byte, klinket run, s", first_byte(command))
        cache = directory / "bytecode"
        shutil.rmtree(cache, ignore_errors=True)
        note(
            "start to first byte, klinket run, no compiled Python, s",
            first_byte(["env", f"PYTHONPYCACHEPREFIX={cache}", *command]),
        )


def measure() -> dict[str, float]:
    """Run everything and return the medians."""
    results: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        results.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory(prefix="klinket-bench-") as name, Deployment(Path(name)) as deployment:
        port = free_port(PRIVATE_ADDRESS)
        key = prepare(deployment, port)
        measure_daemon(note, Path(name), key)
        measure_run(note, deployment, key, port, Path(name))
    if os.geteuid() == 0:
        from bench.captured import measure_captured
        from bench.captured_resources import measure_captured_resources

        measure_captured(note)
        measure_captured_resources(note)
    else:
        print("not root: capture of a whole machine is not measured", file=sys.stderr)
    return {name: round(statistics.median(values), 3) for name, values in results.items()}


def prepare(deployment: Deployment, port: int) -> Path:
    """Bring up everything but a client; return the key file."""
    root = str(Path(__file__).parents[1])
    deployment.start("target", [sys.executable, "-m", "bench.load", PRIVATE_ADDRESS, str(port)], PYTHONPATH=root)
    deployment.start_controller()
    deployment.admin("network", "create", "office")
    deployment.add_connector("office", "office-1")
    deployment.admin("resource", "create", "--network", "office", "--address", PRIVATE_ADDRESS, "--alias", NAME, "Target")
    deployment.start_connector("office-1")
    deployment.admin("service", "create", "bench")
    deployment.admin("service", "grant", "bench", "Target")
    return deployment.add_key("bench", "bench")


def main() -> None:
    """Print a table, and JSON with --json."""
    given = options("client", __doc__ or "", "--json").parse_args()
    results = measure()
    if given.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{platform.node() and platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}")
    for name, value in results.items():
        print(f"  {name:<60} {value:>10}")
