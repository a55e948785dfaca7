"""A worker of flows that waits a second only for a word of the process that decides."""

from __future__ import annotations

import runpy

from klinket.net import workers

if __name__ == "__main__":
    workers.SILENCE_SECONDS = 1.0
    runpy.run_module("klinket.net.pump_worker", run_name="__main__")
