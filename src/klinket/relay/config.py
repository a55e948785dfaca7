"""A relay's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from klinket.net.sockets import HostPort
from klinket.relay.limits import RelayLimits


@dataclass(frozen=True, kw_only=True)
class RelayConfig:
    """`listen`: where it accepts; `advertise`: what peers dial; `controller`: its https URL; `state`: its folder.

    `metrics`: where it can be watched.
    """

    listen: HostPort
    advertise: HostPort
    controller: str
    token: str = field(repr=False)
    state: Path
    controller_ca: str | None = None
    metrics: HostPort | None = None
    limits: RelayLimits = field(default_factory=RelayLimits)
