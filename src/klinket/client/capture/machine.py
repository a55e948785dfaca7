"""What a daemon asks of the capture of its whole machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from klinket.domain.resource import Resource


@dataclass(frozen=True, slots=True)
class CaptureState:
    """`rules`, `dns`: in place and ours; `problems`: what is wrong, each a sentence with the next step."""

    rules: bool
    dns: bool
    problems: tuple[str, ...] = ()


class MachineCapture(Protocol):
    """Captures the connections and name look-ups of a machine."""

    async def start(self) -> None:
        """Claim rules, routes and DNS; raises CaptureImpossible and then leaves nothing behind."""

    async def follow(self, resources: Sequence[Resource]) -> None:
        """Take over what is granted now; called after each change."""

    def state(self) -> CaptureState:
        """Return what is in place."""

    async def aclose(self) -> None:
        """Undo everything."""
