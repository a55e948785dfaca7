"""A trial: load, faults for a while, quiet, and the checks."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from chaos import state
from chaos.checks import CHECKS
from chaos.clocks import Clocks
from chaos.faults import Fault, deck
from chaos.load import Load
from chaos.network import SERVICE_ADDRESS, Network
from chaos.report import Report
from chaos.rights import Rights, Target
from chaos.service import Service
from chaos.world import APART, World, build
from chaos.writes import Writes
from chaos.yardstick import Yardstick

#: Seconds between faults, and seconds a fault lasts.
PAUSE_SECONDS = (0.5, 2.0)
LAST_SECONDS = (0.3, 4.0)
#: Seconds within which everything has to work again after a fault, on a machine that does nothing else (chaos/yardstick.py), and
#: seconds after which the trial gives up on it.
RECOVERY_SECONDS, PATIENCE_SECONDS = 10.0, 120.0
#: Seconds for flows to end after the last fault.
ENDING_SECONDS = 60.0


class Trial:
    """Faults, one after another, upon a world that works; `report` tells what they did."""

    def __init__(self, world: World, load: Load, writes: Writes, yardstick: Yardstick, report: Report) -> None:
        self._world, self._load, self._writes, self._yardstick, self._report = world, load, writes, yardstick, report
        #: When something was struck, until it worked again (monotonic seconds).
        self._struck: list[tuple[float, float]] = []

    def calm(self, begin: float, end: float) -> bool:
        """Return whether nothing was struck from `begin` to `end`."""
        return all(until < begin or since > end for since, until in list(self._struck))

    def strike(self, fault: Fault, seconds: float) -> None:
        """Let one fault begin, last, and end, and measure how long it takes until everything works again."""
        row, lost, failed = self._report.row(fault.name), self._load.lost, len(self._writes.lost)
        began = time.monotonic()
        self._struck.append((began, float("inf")))
        print(f"{fault.name} for {seconds:.1f} s", file=sys.stderr, end="", flush=True)
        try:
            fault.begin(self._world)
            took = self._recover(", while it lasts") if fault.bears else 0.0
            time.sleep(seconds)
        finally:
            fault.end(self._world)
        took = max(took, self._recover("; afterwards" if fault.bears else ""))
        self._world.all_works()
        self._struck[-1] = (began, time.monotonic())
        print(file=sys.stderr, flush=True)
        if "controller" in fault.parts and not self._writes.look_up():
            self._report.breaches.append(f"{fault.name}: what was written could not be looked up")
        row.times += 1
        row.worst_recovery = max(row.worst_recovery, took)
        row.flows_lost += self._load.lost - lost
        row.writes_lost += len(self._writes.lost) - failed
        now = time.monotonic()
        slowness = self._yardstick.slowness(now - took, now)
        row.of_idle = max(row.of_idle, took / slowness)
        if took > RECOVERY_SECONDS * slowness:
            self._report.breaches.append(
                f"{fault.name}: {took:.1f} s until all worked again, machine {slowness:.1f} times slower"
            )

    def _recover(self, when: str = "") -> float:
        """Return after how many seconds a flow and a write were both possible again. `when`: told before."""
        began, flow, write = time.monotonic(), 0.0, 0.0
        while time.monotonic() < began + PATIENCE_SECONDS:
            self._world.heal()
            if not flow and self._world.probe():
                flow = time.monotonic() - began
            if not write and self._writes.one():
                write = time.monotonic() - began
            if flow and write:
                why = f" ({self._writes.error})" if write > RECOVERY_SECONDS else ""
                print(f"{when}: a flow after {flow:.1f} s, a write after {write:.1f} s{why}", file=sys.stderr, end="", flush=True)
                return max(flow, write)
            time.sleep(0.1)
        self._report.breaches.append(f"not even after {PATIENCE_SECONDS:.0f} s: flow {bool(flow)}, write {bool(write)}")
        return time.monotonic() - began


def run(directory: Path, minutes: float, flows: int, seed: int, only: str = "") -> Report:
    """Run a trial in namespaces of its own (chaos/apart.py); one fault of each kind strikes however short it is.

    `only`: strike with faults alone whose name has this in it.
    `seed`: of sizes, faults and times; what the processes do in time nobody repeats.
    """
    rng, report = random.Random(seed), Report(seed)
    network, clocks = Network(APART), Clocks(directory)
    if not clocks.possible:
        report.notes.append("clocks were not stepped, and no disk was lost: there is no C compiler (Debian: apt-get install gcc)")

    def deck_of(rng: random.Random) -> list[Fault]:
        return [fault for fault in deck(rng, clocks=clocks.possible) if only in fault.name]

    if not deck_of(rng):
        report.breaches.append(f"no fault has {only[:40]!r} in its name")
        return report
    network.make()
    with Service(SERVICE_ADDRESS) as service, Target() as target:
        world, ids = build(directory, service, target, network, clocks)
        with ExitStack() as stack:
            stack.callback(world.deployment.stop)
            with Yardstick() as yardstick, Load(world, flows, seed) as load, Writes(world.api, seed) as writes:
                trial = Trial(world, load, writes, yardstick, report)
                rights = Rights(world.api, world.ticks, world.target, ids, trial.calm, seed)
                with rights:
                    _strike_all(trial, rng, minutes, deck_of)
                    time.sleep(1)
            deadline = time.monotonic() + ENDING_SECONDS
            while time.monotonic() < deadline and service.live:
                time.sleep(0.2)
            if not writes.look_up():
                report.breaches.append("what was written could not be looked up at the end")
            report.breaches += state.audit(world)
    report.words = Counter(one.word for one in load.outcomes.values())
    report.refused, report.writes = load.refused, writes.acknowledged
    report.cuts, report.cut_flows, report.slowest_cut = len(rights.rounds), rights.cut_flows, rights.slowest
    report.breaches += [f"{check.rule}: {breach}" for check in CHECKS for breach in check.breaches(world, load)]
    if not report.words["error"]:
        report.notes.append("no flow was struck: it was a short trial")
    report.breaches += writes.lost + rights.breaches(yardstick.slowness) + world.ended
    for check in (state.database(world), state.processes(), state.rules(world), state.tracebacks(world)):
        report.breaches += check
    if not rights.cut_flows:
        report.breaches.append("it was no trial of rights: no flow was cut")
    return report


def _strike_all(trial: Trial, rng: random.Random, minutes: float, deck_of: Callable[[random.Random], list[Fault]]) -> None:
    end = time.monotonic() + minutes * 60
    kinds: set[str] = set()
    every = {fault.kind for fault in deck_of(random.Random(0))}
    while True:
        for fault in deck_of(rng):
            if time.monotonic() > end and kinds >= every:
                return
            time.sleep(rng.uniform(*PAUSE_SECONDS))
            trial.strike(fault, rng.uniform(*LAST_SECONDS))
            kinds.add(fault.kind)
