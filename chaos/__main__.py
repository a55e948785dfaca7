"""`./dev chaos --minutes N`: kill parts at random under load, and say what held."""

from __future__ import annotations

import argparse
import sys

from chaos.run import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--flows", type=int, default=60, help="at a time (60)")
    parser.add_argument("--seed", type=int, help="of sizes and faults")
    given = parser.parse_args()
    report = run(given.minutes, given.flows, given.seed)
    print(report)
    sys.exit(1 if report.breaches else 0)
