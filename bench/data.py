"""The data plane beside plain TCP, VPNs and tunnels."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from bench.command import options
from bench.data_plane import measure, report
from bench.data_plane.results import Results
from bench.data_plane.systems import SYSTEMS, Way, installed
from bench.data_plane.topology import Topology

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
#: Round trip and loss of the far line.
FAR_DELAY_MS, FAR_LOSS_PERCENT = 20.0, 1
IDLE_CONNECTIONS = 2_000
#: Ways that are measured over the far line as well.
FAR = ("plain", "wireguard-go", "nebula", "openvpn", "ssh", "klinket-relay", "klinket-direct")


def _near(topology: Topology, way: Way, seconds: float, results: Results) -> None:
    for kind, name in (("up", "bulk to the server"), ("down", "bulk from the server")):
        for streams in (1, 8):
            rate, cpu = measure.bulk(topology, way, kind, streams, seconds)
            results.note(way.name, f"{name}, {streams} stream{'s' if streams > 1 else ''}, Gbit/s", rate)
            if cpu is not None and kind == "up" and streams == 1:
                results.note(way.name, "process CPU, s/GB", cpu)
    figures = measure.load(topology, way, "echo", rounds=300)
    results.note(way.name, "connect+echo p50, ms", figures["p50_ms"])
    results.note(way.name, "connect+echo p99, ms", figures["p99_ms"])
    figures = measure.load(topology, way, "concurrent", streams=32, seconds=seconds)
    results.note(way.name, "32 connects at once, a second", figures["connects_s"])
    results.note(way.name, "of these failed", figures["failed"])
    if way.carries_datagrams:
        for window in (1, 32):
            figures = measure.load(topology, way, "udp", streams=window, seconds=seconds)
            results.note(way.name, f"UDP 1,200 B echoes a second, {window} under way", figures["echoes_s"])


def _round(names: list[str], seconds: float, results: Results, *, far: bool, last: bool) -> None:
    for name in names:
        start, _ = SYSTEMS[name]
        delay, loss = (FAR_DELAY_MS, FAR_LOSS_PERCENT) if far else (0.0, 0)
        with tempfile.TemporaryDirectory(prefix="klinket-bench-") as folder, Topology(Path(folder), delay, loss) as topology:
            way: Way | None = None
            try:
                way = start(topology)
                measure.wait_ready(topology, way)
                if far:
                    figures = measure.load(topology, way, "echo", rounds=60)
                    results.note(way.name, "40 ms and 1 % loss: connect+echo p50, ms", figures["p50_ms"])
                    rate, _ = measure.bulk(topology, way, "up", 1, seconds)
                    results.note(way.name, "40 ms and 1 % loss: bulk, Gbit/s", rate)
                    continue
                _near(topology, way, seconds, results)
                if last and way.pids and not way.prefix:
                    results.note(way.name, "memory at rest (PSS), MB", measure.memory_mb(way.pids))
                    if name.startswith("klinket"):
                        grown = measure.idle(topology, way, IDLE_CONNECTIONS)
                        results.note(way.name, "memory per idle connection, kB", grown * 1000 / IDLE_CONNECTIONS)
            except RuntimeError as error:
                print(f"  {name}: left out: {error}", file=sys.stderr, flush=True)
                results.left_out[name] = str(error)
            finally:
                if way is not None:
                    way.close()
        print(f"  {name}{', far' if far else ''}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print a table (JSON with --json), and with --keep write docs/benchmarks.md."""
    parser = options("data", __doc__ or "", "--quick --only plain,klinket-relay")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that everything works, measures nothing")
    parser.add_argument("--only", default=",".join(SYSTEMS), metavar="NAMES", help="with commas between (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="write docs/benchmarks.md with its chart")
    given = parser.parse_args()
    if os.geteuid():
        sys.exit("this measurement makes network namespaces: run it as root")
    wanted = [name for name in given.only.split(",") if name]
    if unknown := [name for name in wanted if name not in SYSTEMS]:
        parser.error(f"no such system: {', '.join(unknown)}; there are {', '.join(SYSTEMS)}")
    results = Results()
    for name in [name for name in wanted if not installed(name)]:
        print(f"  {name}: not installed, left out", file=sys.stderr)
        results.left_out[name] = "not installed"
    names = [name for name in wanted if installed(name)]
    seconds, rounds = (0.5, 1) if given.quick else (2.0, given.rounds)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        _round(names, seconds, results, far=False, last=number == rounds - 1)
    _round([name for name in names if name in FAR], seconds, results, far=True, last=True)
    print(results.to_json() if given.json else results.to_text())
    if given.keep:
        report.keep(results, DOCUMENT)
