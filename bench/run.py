"""What `klinket run` adds to a command: seconds to the first byte of a resource and to the end of `true`, and memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.command import options, say
from bench.main_job import NAME, prepare
from examples.deployment import Deployment, clean_environment, free_port

ROUNDS = 15
#: Says when the first byte of a resource was there, and klinket's peak of resident memory, in kB.
PROBE = (
    "exec 3<>/dev/tcp/$0/$1 && printf x >&3 && head -c 1 <&3 >/dev/null && date +%s.%N &&"
    " sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/$PPID/status"
)


def started(command: Sequence[str], environment: dict[str, str]) -> tuple[float, float, list[str]]:
    """Return the seconds from start to end and the time of the start of a command, and the lines it printed."""
    begun, at = time.monotonic(), time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return time.monotonic() - begun, at, done.stdout.split()


def measure(deployment: Deployment, key: Path, port: int, python: str) -> dict[str, object]:
    """Return medians in milliseconds, and the largest peak in MB, of `klinket run` with an interpreter."""
    environment = clean_environment() | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("src"))}
    klinket = [python, "-m", "klinket", "run", "--key-file", str(key), "--"]
    first_bytes, whole, plain, peaks = [], [], [], []
    for number in range(ROUNDS):
        if number % 5 == 0:
            say(f"{python}: round {number + 1} of {ROUNDS}")
        _, at, (reached, peak) = started([*klinket, "bash", "-c", PROBE, NAME, str(port)], environment)
        first_bytes.append(float(reached) - at)
        peaks.append(int(peak))
        whole.append(started([*klinket, "true"], environment)[0])
        plain.append(started([python, "-c", "pass"], environment)[0])
    return {
        "first byte ms": round(statistics.median(first_bytes) * 1000),
        "first byte ms, best": round(min(first_bytes) * 1000),
        "klinket run -- true ms": round(statistics.median(whole) * 1000),
        "python -c pass ms": round(statistics.median(plain) * 1000),
        "peak RSS MB": round(max(peaks) / 1024, 1),
    }


def main() -> None:
    """Measure with this interpreter, or with those given: an environment with the client's packages alone is smaller."""
    parser = options("run", __doc__ or "", "")
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="interpreters to run the client with (this one)")
    pythons = parser.parse_args().pythons or [sys.executable]
    with tempfile.TemporaryDirectory(prefix="klinket-bench-") as directory, Deployment(Path(directory)) as deployment:
        port = free_port()
        key, _ = prepare(deployment, port)
        for python in pythons:
            print(json.dumps({"python": python, "load": os.getloadavg()[0], **measure(deployment, key, port, python)}))
