"""What strikes: each fault begins, lasts for a while, and ends; then everything has to work again by itself."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from chaos import disk
from chaos.network import HUB
from chaos.world import APART, CONNECTORS, World

#: Descriptors left to a part that runs out of them.
SPARE_DESCRIPTORS = 3
#: Steps of clocks, in seconds.
STEPS = (-3600, -90, 90, 3600)
#: Connections of slow peers to each port that listens, and flows whose program reads nothing.
SLOW_PEERS, SLOW_FLOWS = 40, 10


class Fault(ABC):
    """`kind`: what is done; `part`: to whom. `bears`: klinket has to work while it lasts as well, without an end."""

    kind: str
    bears = False

    def __init__(self, part: str, rng: random.Random) -> None:
        self.part, self._rng = part, rng

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.part}"

    @property
    def parts(self) -> frozenset[str]:
        """Return who is struck."""
        return frozenset((self.part,))

    @abstractmethod
    def begin(self, world: World) -> None: ...

    @abstractmethod
    def end(self, world: World) -> None: ...


class Killed(Fault):
    kind = "killed"

    def begin(self, world: World) -> None:
        world.kill(self.part)

    def end(self, world: World) -> None:
        if self.part in world.down:
            world.start_again(self.part)


class Stopped(Fault):
    """SIGSTOP: the kernel goes on to take connections and bytes in its name."""

    kind = "stopped"

    def begin(self, world: World) -> None:
        self._stopped = list(world.family(self.part))
        self._signal(signal.SIGSTOP)

    def end(self, world: World) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


class DiskFull(Fault):
    kind = "disk full"

    def begin(self, world: World) -> None:
        disk.fill(world.folder(self.part))

    def end(self, world: World) -> None:
        disk.empty(world.folder(self.part))


class DiskReadOnly(Fault):
    """A controller keeps its database open, and cannot lose its disk so (see DiskLost): it is started on such a disk."""

    kind = "disk read-only"

    def begin(self, world: World) -> None:
        if self.part == "controller":
            world.kill(self.part)
        disk.read_only(world.folder(self.part))
        if self.part == "controller":
            world.deployment.parts[self.part].start()

    def end(self, world: World) -> None:
        disk.writable(world.folder(self.part))


class DiskLost(Fault):
    """The disk is read-only from one moment to the next, under a controller that runs and has its database open there."""

    kind = "disk lost"

    def begin(self, world: World) -> None:
        world.clocks.lose_disk(lost=True)

    def end(self, world: World) -> None:
        world.clocks.lose_disk(lost=False)


class NoDescriptors(Fault):
    kind = "no descriptors"

    def begin(self, world: World) -> None:
        self._limits: dict[int, tuple[int, int]] = {}
        for pid in world.family(self.part):
            with contextlib.suppress(OSError):
                soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                highest = max((int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()), default=0)  # none: it has just ended
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(soft, highest + 1 + SPARE_DESCRIPTORS), hard))
                self._limits[pid] = (soft, hard)

    def end(self, world: World) -> None:
        for pid, limits in self._limits.items():
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


class ClockStepped(Fault):
    """The clock is set right at the end: whoever differs from the controller by more than 5 s cannot log in until then."""

    kind = "clock stepped"

    def begin(self, world: World) -> None:
        world.clocks.step(self.part, self._rng.choice(STEPS))

    def end(self, world: World) -> None:
        world.clocks.step(self.part, 0)


class Parted(Fault):
    """`PART from all`: what a connector leads to as well; otherwise from the controller or the relay alone."""

    kind = "parted"

    def begin(self, world: World) -> None:
        name, _, other = self.part.partition(" from ")
        ports = {"controller": [world.deployment.port], "relay": [world.deployment.relay_port], "all": []}[other]
        world.network.part(name, ports)

    def end(self, world: World) -> None:
        world.network.join()


class SlowPeers(Fault):
    """Strangers who say a byte and wait at each port, and programs that read nothing."""

    kind = "slow peers"
    bears = True

    def begin(self, world: World) -> None:
        self._open: list[socket.socket] = []
        for port in (world.deployment.port, world.deployment.relay_port):
            for _ in range(SLOW_PEERS):
                with contextlib.suppress(OSError):
                    stranger = socket.create_connection((HUB, port), timeout=2)
                    self._open.append(stranger)
                    stranger.sendall(b"\x16")
        for _ in range(SLOW_FLOWS):
            with contextlib.suppress(OSError):
                self._open.append(world.slow_flow())

    def end(self, world: World) -> None:
        for one in self._open:
            one.close()


class Together(Fault):
    """Several at once, upon different parts; at most one of them cuts cables, which are joined all together."""

    kind = "at once"

    def __init__(self, faults: Sequence[Fault], rng: random.Random) -> None:
        super().__init__(" and ".join(fault.name.replace(": ", " ") for fault in faults), rng)
        self._faults = list(faults)
        self._begun: list[Fault] = []

    @property
    def parts(self) -> frozenset[str]:
        return frozenset(part for fault in self._faults for part in fault.parts)

    def begin(self, world: World) -> None:
        for fault in self._faults:
            fault.begin(world)
            self._begun.append(fault)

    def end(self, world: World) -> None:
        with contextlib.ExitStack() as stack:
            for fault in self._begun:
                stack.callback(fault.end, world)


_PARTS = ("controller", "relay", *CONNECTORS, "client-ci", "client-brief")
#: Every fault there is.
FAULTS: tuple[tuple[type[Fault], str], ...] = (
    *((Killed, part) for part in _PARTS),
    *((Stopped, part) for part in _PARTS),
    *((DiskFull, part) for part in ("controller", *CONNECTORS)),
    *((DiskReadOnly, part) for part in ("controller", *CONNECTORS)),
    (DiskLost, "controller"),
    *((NoDescriptors, part) for part in _PARTS),
    *((ClockStepped, part) for part in ("controller", *CONNECTORS, "client-ci")),
    *((Parted, f"{part} from {other}") for part in APART for other in ("controller", "relay", "all")),
    (SlowPeers, "every port"),
)


#: Those that need a compiler.
FAKED = (ClockStepped, DiskLost)
#: How many faults strike together, and how often in one deck.
AT_ONCE = (2, 2, 2, 3, 3)


def together(rng: random.Random, faults: Sequence[Fault], count: int) -> Together:
    """Return so many of these faults at once: of different kinds, upon different parts."""
    chosen: list[Fault] = []
    for fault in rng.sample(faults, len(faults)):
        if len(chosen) < count and all(one.kind != fault.kind and _apart(one, fault) for one in chosen) and not fault.bears:
            chosen.append(fault)
    return Together(chosen, rng)


def _apart(one: Fault, other: Fault) -> bool:
    """Return whether two faults are of different parts: a relay that its controller starts goes with it."""
    names = [fault.part.partition(" from ")[0] for fault in (one, other)]
    return names[0] != names[1] and set(names) != {"controller", "relay"}


def deck(rng: random.Random, *, clocks: bool) -> list[Fault]:
    """Return every fault once, in random order: first one of each kind, then a second of each, and so on.

    The first that is killed is what carries the load, so that the shortest trial has flows that end early.
    """

    def every() -> list[Fault]:
        return [kind(part, rng) for kind, part in FAULTS if clocks or kind not in FAKED]

    faults = every() + [together(rng, every(), count) for count in AT_ONCE]
    rng.shuffle(faults)
    faults.sort(key=lambda fault: not (isinstance(fault, Killed) and fault.part == "client-ci"))
    seen: dict[str, int] = {}
    turns = []
    for fault in faults:
        seen[fault.kind] = seen.get(fault.kind, 0) + 1
        turns.append((seen[fault.kind], fault))
    return [fault for _, fault in sorted(turns, key=lambda turn: turn[0])]
