"""`./dev chaos --minutes N`: kill parts at random under load, and say what held."""

from __future__ import annotations

import argparse
import math
import sys

from chaos.run import run
from examples.demo import end_on_signals


def minutes(text: str) -> float:
    """Return how long a trial lasts; raises ArgumentTypeError unless it is a number above 0."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text[:40]!r}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--minutes", type=minutes, default=10.0, help="how long faults go on (%(default)s)")
    parser.add_argument("--flows", type=int, default=60, help="at a time (60)")
    parser.add_argument("--seed", type=int, help="of sizes and faults")
    given = parser.parse_args()
    end_on_signals()
    report = run(given.minutes, given.flows, given.seed)
    print(report)
    sys.exit(1 if report.breaches else 0)
