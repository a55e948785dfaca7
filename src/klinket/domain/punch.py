"""Hole punching: which endpoint of another may be dialled on the controller's word (security.md 17).

The controller applies the rule to what it has seen itself, and whoever dials applies it again to what it is told.
"""

from __future__ import annotations

from dataclasses import dataclass

from klinket.domain.address import IPAddress, parse_ip
from klinket.domain.errors import InvalidInput
from klinket.domain.special_ranges import SPECIAL, meanings

#: Ports below are of services (RFC 6335): outgoing connections, and so holes, have others.
MIN_PORT = 1024
#: Local ports of each side, so that there are up to ENDPOINTS * ENDPOINTS connections in one go.
ENDPOINTS = 4
#: Characters of "[IPv6 address]:port".
MAX_ENDPOINT_CHARS = 47


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and port as they were seen from outside of a NAT."""

    host: IPAddress
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Return what "address:port" or "[v6]:port" says; raises InvalidInput("endpoint")."""
        host, _, port = text[: MAX_ENDPOINT_CHARS + 1].rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        address = parse_ip(host[1:-1] if bracketed else host)
        digits = port.isascii() and port.isdigit() and len(port) <= 5
        if len(text) > MAX_ENDPOINT_CHARS or address is None or not digits or not 0 < int(port) <= 65_535:
            raise InvalidInput("endpoint", f"not an address and port: {text[:MAX_ENDPOINT_CHARS]!r}")
        return cls(address, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.host.version == 6 else f"{self.host}:{self.port}"


def objection(own: IPAddress, other: Endpoint) -> str | None:
    """Return why a peer seen at `own` may not dial `other`, or None where it may.

    Nobody is led to services, to itself, to special ranges, or from outside into private networks: those are different hosts
    in different places.
    """
    if (reason := objection_to_anybody(other)) is not None:
        return reason
    if own.version != other.host.version:
        return "one side is seen over IPv4 and the other over IPv6"
    if own == other.host:
        return "both sides are seen at the same address"
    if not _is_public(other.host) and _is_public(own):
        return f"{other.host} is private"
    return None


def objection_to_anybody(other: Endpoint) -> str | None:
    """Return why nobody at all may dial an endpoint, or None."""
    if other.port < MIN_PORT:
        return f"port {other.port} is one of services"
    if any(one in special for one in meanings(other.host) for special in SPECIAL):
        return f"{other.host} is in a special range"
    return None


def _is_public(address: IPAddress) -> bool:
    return all(one.is_global for one in meanings(address))
