"""What strikes: each fault does something to a part, and undoes it after a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chaos.world import CONNECTORS, World


@dataclass(frozen=True)
class Fault:
    """`strike` returns at once; `undo` is called when the fault has lasted for a random time."""

    name: str
    strike: Callable[[World], None]
    undo: Callable[[World], None] = lambda _: None


def killed(part: str) -> Fault:
    """Return the fault that kills a part and starts it again."""
    return Fault(f"{part} killed", lambda world: world.kill(part), lambda world: world.start_again(part))


#: In the order of how often they strike, by weight.
FAULTS: dict[Fault, int] = {
    **{killed(name): 3 for name in CONNECTORS},
    Fault("relay killed", World.kill_relay): 3,
    killed("controller"): 2,
}
