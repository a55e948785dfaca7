"""Measuring one way: load in the client's namespace, CPU time and memory of the processes that carry it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.data_plane.systems import READY_SECONDS, Way
from bench.data_plane.topology import ROOT, Topology

_TICKS = os.sysconf("SC_CLK_TCK")


def load(
    topology: Topology, way: Way, kind: str, *, streams: int = 1, seconds: float = 2.0, rounds: int = 200
) -> dict[str, float]:
    """Run one kind of load and return its figures; raises RuntimeError."""
    done = subprocess.run(
        command(topology, way, kind, streams=streams, seconds=seconds, rounds=rounds),
        capture_output=True, text=True, timeout=120, env=_environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{way.name}: {kind}: {done.stderr.strip()[-400:]}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def command(topology: Topology, way: Way, kind: str, *, streams: int, seconds: float, rounds: int) -> list[str]:
    """Return the command line of a load."""
    program = [
        *way.prefix, sys.executable, "-m", "bench.data_plane.load", kind, way.host, ",".join(map(str, way.ports)),
        "--streams", str(streams), "--seconds", str(seconds), "--rounds", str(rounds),
        *(["--socks", str(way.socks)] if way.socks else []),
    ]  # fmt: skip
    return topology.inside("client", *program)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}


def wait_ready(topology: Topology, way: Way) -> None:
    """Wait until the way carries an echo; raises RuntimeError with what it says last."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            load(topology, way, "echo", rounds=3)
            return
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{way.name} carried nothing within {READY_SECONDS:.0f} s: {error}") from error
            time.sleep(0.3)


def family(pids: list[int]) -> list[int]:
    """Return processes with all their descendants, those that live."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], list(pids)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Return user and system seconds of processes, their descendants, and what those left behind."""
    total = 0
    for pid in family(pids):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / _TICKS


def memory_mb(pids: list[int]) -> float:
    """Return the proportional set size of processes and their descendants, in MB."""
    total = 0
    for pid in family(pids):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1000


def bulk(topology: Topology, way: Way, kind: str, streams: int, seconds: float) -> tuple[float, float | None]:
    """Return Gbit/s, and CPU seconds per GB of the way's processes (None: the kernel carries it)."""
    before = cpu_seconds(way.pids)
    rate = load(topology, way, kind, streams=streams, seconds=seconds)["gbit_s"]
    if not way.pids or way.prefix:  # below `klinket run` the carrying process is the load's own parent
        return rate, None
    gigabytes = rate * seconds / 8
    return rate, (cpu_seconds(way.pids) - before) / gigabytes if gigabytes else None


def idle(topology: Topology, way: Way, count: int) -> float:
    """Return the MB by which the way's processes grow with `count` idle connections."""
    before = memory_mb(way.pids)
    held = subprocess.Popen(
        command(topology, way, "hold", streams=count, seconds=0, rounds=0),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment(),
    )  # fmt: skip
    assert held.stdout is not None
    try:
        if not held.stdout.readline():
            raise RuntimeError(f"{way.name}: {count} connections could not be held")
        time.sleep(1.0)
        return memory_mb(way.pids) - before
    finally:
        held.kill()
        held.wait()
