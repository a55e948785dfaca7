"""`./dev simulate`: run simulations one after the other, on every core, until the time is over or one is broken."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from tests.simulation.day import LOOKS, simulate_day
from tests.simulation.world import BrokenInvariant, simulate

#: Seconds between lines of progress.
PROGRESS_SECONDS = 10.0


def run(seed: int) -> tuple[int, int, str]:
    """Return the seed, how many flows were opened, and what was broken ("": nothing)."""
    logging.disable(logging.CRITICAL)
    try:
        trace = simulate(seed)
    except BrokenInvariant as broken:
        return seed, 0, str(broken)
    return seed, sum(" opened " in line for line in trace), ""


def main() -> int:
    """Return the exit code: 1 where an invariant was broken."""
    parser = argparse.ArgumentParser(prog="./dev simulate", description=__doc__, epilog="example: ./dev simulate --minutes 0.3")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument(
        "--seeds", type=int, default=0, metavar="N", help="end after so many seeds, however long it takes (default: by time)"
    )
    parser.add_argument("--from-seed", type=int, default=1, metavar="N", help="the first seed (default: 1)")
    parser.add_argument("--seed", type=int, metavar="N", help="only this one, with what happened in it")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="default: one for each core")
    parser.add_argument(
        "--hours", type=float, metavar="N", help="one long run instead: N hours of virtual time, in which nothing may grow"
    )
    wanted = parser.parse_args()
    if wanted.hours is not None:
        if wanted.hours <= 0:
            parser.error("--hours is more than 0")
        return _long(1 if wanted.seed is None else wanted.seed, wanted.hours)
    if wanted.seed is not None:
        return _one(wanted.seed)
    if wanted.minutes <= 0 or wanted.seeds < 0 or wanted.processes < 1:
        parser.error("--minutes, --seeds and --processes are more than 0")
    begun, done, flows = time.monotonic(), 0, 0
    told_at = begun
    seeds: Iterator[int] = itertools.count(wanted.from_seed)
    if wanted.seeds:
        seeds = iter(range(wanted.from_seed, wanted.from_seed + wanted.seeds))
    until = None if wanted.seeds else begun + wanted.minutes * 60
    with ProcessPoolExecutor(wanted.processes) as pool:
        running: set[Future[tuple[int, int, str]]] = set()
        while True:
            while len(running) < 2 * wanted.processes and (until is None or time.monotonic() < until):
                seed = next(seeds, None)
                if seed is None:
                    break
                running.add(pool.submit(run, seed))
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for seed, opened, broken in (future.result() for future in finished):
                if broken:
                    for future in running:
                        future.cancel()
                    print(f"{broken}\n\nonce more: ./dev simulate --seed {seed}")
                    return 1
                done, flows = done + 1, flows + opened
            if time.monotonic() - told_at >= PROGRESS_SECONDS:
                told_at = time.monotonic()
                print(f"{told_at - begun:6.0f} s  {done} seeds, {flows} flows, nothing broken", file=sys.stderr)
    print(f"{done} seeds from {wanted.from_seed} on in {time.monotonic() - begun:.0f} s, {flows} flows opened: nothing broken")
    return 0


def _long(seed: int, hours: float) -> int:
    logging.disable(logging.CRITICAL)
    told_at = begun = time.perf_counter()

    def progress(gone: float) -> None:
        nonlocal told_at
        if time.perf_counter() - told_at >= PROGRESS_SECONDS:
            told_at = time.perf_counter()
            print(f"{told_at - begun:6.0f} s  {gone:.1f} h of virtual time", file=sys.stderr)

    try:
        day = simulate_day(seed, hours, progress=progress)
    except BrokenInvariant as broken:
        print(f"{broken}\n\nonce more: ./dev simulate --hours {hours:g} --seed {seed}")
        return 1
    last = day.tables[-1]
    print(f"{hours:g} h of virtual time in {time.perf_counter() - begun:.0f} s, {LOOKS} looks at {len(day.looks[-1])} containers "
          f"and {len(last)} tables")  # fmt: skip
    print("rows in the end: " + ", ".join(f"{name} {rows}" for name, rows in sorted(last.items()) if rows))
    grown = day.growing()
    for name, parts in sorted(grown.items()):
        print(f"GROWS {name}: {' -> '.join(f'{part:g}' for part in parts)}")
    if not grown:
        print("nothing grows")
    return 1 if grown else 0


def _one(seed: int) -> int:
    try:
        print("\n".join(simulate(seed)))
    except BrokenInvariant as broken:
        print(broken)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
