"""How much of its time the machine has for what wants to run: recoveries are judged by it, for machines are shared."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

#: Every PAUSE_SECONDS a process works for WORK_SECONDS of a core, and says how many times longer it took.
PAUSE_SECONDS, WORK_SECONDS = 0.25, 0.02
_PROGRAM = f"""
import time
while True:
    wall, work = time.monotonic(), time.process_time()
    while time.process_time() - work < {WORK_SECONDS}:
        pass
    print((time.monotonic() - wall) / (time.process_time() - work), flush=True)
    time.sleep({PAUSE_SECONDS})
"""


class Yardstick:
    """Measures while it is entered."""

    def __init__(self) -> None:
        self._found: list[tuple[float, float]] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Yardstick:
        self._process = subprocess.Popen([sys.executable, "-S", "-c", _PROGRAM], stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def slowness(self, begin: float, end: float) -> float:
        """Return how many times longer work took than on an idle machine between two moments; at least 1."""
        found = [ratio for at, ratio in list(self._found) if begin <= at <= end + 1.0]
        return max(1.0, sum(found) / len(found)) if found else 1.0

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._found.append((time.monotonic(), float(line)))
