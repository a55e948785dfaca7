"""Capture of a whole machine's traffic, as the daemon asks for it (implemented in client/capture/host/)."""

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
    """Rules, routes and DNS of this machine, while it is started."""

    async def start(self) -> None:
        """Claim rules, routes and DNS; raises CaptureImpossible and then leaves nothing behind."""

    async def follow(self, resources: Sequence[Resource]) -> None:
        """Capture what is granted now; called after each change."""

    def state(self) -> CaptureState:
        """Return what is in place."""

    async def aclose(self) -> None:
        """Undo everything."""
