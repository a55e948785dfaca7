"""`./dev chaos --minutes N`: faults strike at random under load, and what held is said."""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import tempfile
from pathlib import Path

from chaos.apart import INSIDE, left_over, run_apart
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


def _keep_logs(folder: Path) -> None:
    kept = Path(tempfile.mkdtemp(prefix="klinket-chaos-kept-"))
    for log in folder.glob("*.log"):
        log.replace(kept / log.name)
    print(f"logs: {kept}", file=sys.stderr)


def main() -> int:
    """Return 0 when every check held, 1 when one did not, 2 where no trial is possible."""
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__, epilog="example: ./dev chaos --only killed")
    parser.add_argument("--minutes", type=minutes, default=10.0, help="how long faults go on (%(default)s)")
    parser.add_argument("--flows", type=int, default=60, help="at a time (60)")
    parser.add_argument("--seed", type=int, help="of sizes and faults")
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults whose name has TEXT in it: 'stepped: controller'")
    parser.add_argument("--json", action="store_true", help="JSON on stdout, for scripts")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    given = parser.parse_args()
    end_on_signals()
    if folder := os.environ.pop(INSIDE, None):
        report = run(Path(folder), given.minutes, given.flows, given.seed, given.only)
        print(report.as_json() if given.json else report, flush=True)
        return 1 if report.breaches else 0
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="klinket-chaos-", ignore_cleanup_errors=True) as directory:
        try:
            code = run_apart([*sys.argv[1:], f"--seed={seed}"], Path(directory))
        except OSError as error:
            print(error, file=sys.stderr)
            return 2
        finally:
            if given.keep:
                _keep_logs(Path(directory))
        for what in left_over(Path(directory)):
            print(f"left behind: {what}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
