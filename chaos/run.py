"""A trial: load, faults for a while, quiet, and the checks."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from chaos import state
from chaos.checks import CHECKS
from chaos.clocks import Clocks
from chaos.faults import Fault, deck
from chaos.load import Load
from chaos.network import SERVICE_ADDRESS, Network
from chaos.report import Report
from chaos.rights import Rights
from chaos.service import Service
from chaos.world import CONNECTORS, World, build
from chaos.writes import Writes

#: Seconds between faults, and seconds a fault lasts.
PAUSE_SECONDS = (0.5, 2.0)
LAST_SECONDS = (0.3, 4.0)
#: Seconds within which everything has to work again after a fault, and seconds after which the trial gives up on it.
RECOVERY_SECONDS, PATIENCE_SECONDS = 10.0, 60.0
#: Seconds for flows to end after the last fault.
ENDING_SECONDS = 60.0


class Trial:
    """Faults, one after another, upon a world that works; `report` tells what they did."""

    def __init__(self, world: World, load: Load, writes: Writes, report: Report) -> None:
        self._world, self._load, self._writes, self._report = world, load, writes, report
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
            took = self._recover() if fault.bears else 0.0
            time.sleep(seconds)
        finally:
            fault.end(self._world)
        took = max(took, self._recover())
        self._struck[-1] = (began, time.monotonic())
        print(f": works again after {took:.1f} s", file=sys.stderr, flush=True)
        if fault.part == "controller" and not self._writes.look_up():
            self._report.breaches.append(f"{fault.name}: what was written could not be looked up")
        row.times += 1
        row.worst_recovery = max(row.worst_recovery, took)
        row.flows_lost += self._load.lost - lost
        row.writes_lost += len(self._writes.lost) - failed
        if took > RECOVERY_SECONDS:
            self._report.breaches.append(f"{fault.name}: {took:.1f} s until everything worked again")

    def _recover(self) -> float:
        """Return after how many seconds a flow and a write were both possible again."""
        began, flow, write = time.monotonic(), False, False
        while time.monotonic() < began + PATIENCE_SECONDS:
            self._world.heal()
            flow = flow or self._world.probe()
            write = write or self._writes.one()
            if flow and write:
                return time.monotonic() - began
            time.sleep(0.1)
        self._report.breaches.append(f"not even after {PATIENCE_SECONDS:.0f} s: flow {flow}, write {write}")
        return time.monotonic() - began


def run(directory: Path, minutes: float, flows: int, seed: int) -> Report:
    """Run a trial in namespaces of its own (chaos/apart.py); one fault of each kind strikes however short it is.

    `seed`: of sizes, faults and times; what the processes do in time nobody repeats.
    """
    rng, report = random.Random(seed), Report(seed)
    network, clocks = Network(CONNECTORS), Clocks(directory)
    if not clocks.possible:
        report.notes.append("clocks were not stepped: libfaketime is missing (Debian: apt-get install libfaketime)")
    network.make()
    with Service(SERVICE_ADDRESS) as service:
        world, ids = build(directory, service, network, clocks)
        with ExitStack() as stack:
            stack.callback(world.deployment.stop)
            with Load(world, flows, seed) as load, Writes(world.api, seed) as writes:
                trial = Trial(world, load, writes, report)
                rights = Rights(world.api, world.ticks, world.target, ids, trial.calm, seed)
                with rights:
                    _strike_all(trial, rng, minutes, clocks.possible)
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
    report.breaches += writes.lost + rights.breaches() + world.ended
    for check in (state.database(world), state.processes(), state.rules(world), state.tracebacks(world)):
        report.breaches += check
    if not rights.cut_flows:
        report.breaches.append("it was no trial of rights: no flow was cut")
    return report


def _strike_all(trial: Trial, rng: random.Random, minutes: float, clocks: bool) -> None:
    end = time.monotonic() + minutes * 60
    kinds: set[str] = set()
    every = {fault.kind for fault in deck(random.Random(0), clocks=clocks)}
    while True:
        for fault in deck(rng, clocks=clocks):
            if time.monotonic() > end and kinds >= every:
                return
            time.sleep(rng.uniform(*PAUSE_SECONDS))
            trial.strike(fault, rng.uniform(*LAST_SECONDS))
            kinds.add(fault.kind)
