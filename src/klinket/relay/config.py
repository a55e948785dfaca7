"""A relay's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from klinket.net.sockets import HostPort
from klinket.relay.limits import RelayLimits

#: Seconds for pairs at a stop, by default and at the most.
DRAIN_SECONDS, MAX_DRAIN_SECONDS = 30.0, 86_400


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
    #: UDP port on which datagrams are forwarded; 0: none. None: the TCP port's number, and peers send to that of `advertise`.
    datagram_port: int | None = None
    #: Seconds for pairs at a stop.
    drain_seconds: float = DRAIN_SECONDS
    #: Where the token is read again before each attachment; None: it stays as it is.
    token_file: Path | None = None
    #: Processes that move bytes, 1: this one alone. None: as many as cores.
    processes: int | None = None
    limits: RelayLimits = field(default_factory=RelayLimits)

    def current_token(self) -> str:
        """Return the token as it is now: a new one takes effect without a stop."""
        if self.token_file is not None:
            try:
                return self.token_file.read_text().strip() or self.token
            except (OSError, ValueError):
                pass  # the one it was started with may still do
        return self.token
