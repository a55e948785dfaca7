"""A trial: load, faults at random for a while, quiet, and the checks."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from chaos.checks import CHECKS
from chaos.faults import FAULTS
from chaos.load import Load
from chaos.service import Service
from chaos.world import SERVICE_ADDRESS, build
from examples.deployment import Deployment

#: Seconds between faults, and seconds a fault lasts.
PAUSE_SECONDS = (1.0, 5.0)
LAST_SECONDS = (0.2, 4.0)
#: Seconds for everything to recover and end after the last fault.
RECOVERY_SECONDS = 60.0


@dataclass
class Report:
    """`breaches`: of the checks; empty when everything held. `words`: how the programs' ends ended."""

    faults: Counter[str]
    words: Counter[str]
    refused: int
    breaches: list[str]

    def __str__(self) -> str:
        faults = ", ".join(f"{count} x {name}" for name, count in sorted(self.faults.items()))
        ends = ", ".join(f"{count} {word}" for word, count in sorted(self.words.items()))
        verdict = "\n".join(self.breaches) or "every check held"
        return f"faults: {faults}\nflows: {ends}; {self.refused} connections refused\n{verdict}"


def run(minutes: float, flows: int = 60, seed: int | None = None) -> Report:
    """Run a trial on a klinket of its own. `seed`: of sizes and faults; what the processes do in time nobody repeats."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    rng, struck = random.Random(seed), Counter[str]()
    with (
        tempfile.TemporaryDirectory(prefix="klinket-chaos-") as directory,
        Service(SERVICE_ADDRESS) as service,
        Deployment(Path(directory), network="chaos") as deployment,
    ):
        world = build(deployment, service)
        with Load(world, flows, seed) as load:
            end = time.monotonic() + minutes * 60
            while time.monotonic() < end:
                time.sleep(rng.uniform(*PAUSE_SECONDS))
                (fault,) = rng.choices(list(FAULTS), list(FAULTS.values()))
                fault.strike(world)
                struck[fault.name] += 1
                time.sleep(rng.uniform(*LAST_SECONDS))
                fault.undo(world)
                world.heal()
            deadline = time.monotonic() + RECOVERY_SECONDS
            while time.monotonic() < deadline and not world.works():
                world.heal()
                time.sleep(0.5)
        deadline = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < deadline and service.live:
            time.sleep(0.2)
        breaches = [f"{check.rule}: {breach}" for check in CHECKS for breach in check.breaches(world, load)]
        return Report(struck, Counter(one.word for one in load.outcomes.values()), load.refused, breaches)
