"""Which ports and protocols of a resource are open (facts §4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from klinket.domain.errors import InvalidInput
from klinket.domain.flow import TransportProtocol

MIN_PORT, MAX_PORT = 1, 65_535
#: Ranges of one protocol of one resource.
MAX_RANGES = 64


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports `first` to `last`, both included; 1 <= first <= last <= 65535. Raises InvalidInput("ports") otherwise."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not MIN_PORT <= self.first <= MAX_PORT or not MIN_PORT <= self.last <= MAX_PORT:
            raise InvalidInput(
                "ports", f"port range {self.first}-{self.last}: ports are {MIN_PORT} to {MAX_PORT}", hint="443 or 8000-8999"
            )
        if self.first > self.last:
            raise InvalidInput(
                "ports",
                f"port range {self.first}-{self.last}: the first port is above the last",
                hint=f"{self.last}-{self.first}",
            )

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """Return the range of "443" or "8000-8999"; raises InvalidInput("ports")."""
        first, dash, last = text.strip().partition("-")
        if not (first.isascii() and first.isdigit() and len(first) <= 5):
            raise InvalidInput("ports", f"not a port or port range: {text[:40]!r}", hint="443 or 8000-8999")
        if dash and not (last.isascii() and last.isdigit() and len(last) <= 5):
            raise InvalidInput("ports", f"not a port or port range: {text[:40]!r}", hint="443 or 8000-8999")
        return cls(int(first), int(last) if dash else int(first))

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class PortPolicy(Enum):
    """ALLOW_ALL: every port. RESTRICTED: the listed ones; an empty list allows none."""

    ALLOW_ALL = "ALLOW_ALL"
    RESTRICTED = "RESTRICTED"


@dataclass(frozen=True, slots=True)
class PortRule:
    """What one protocol allows. `ports` keep the order in which they were given."""

    policy: PortPolicy = PortPolicy.ALLOW_ALL
    ports: tuple[PortRange, ...] = ()

    def __post_init__(self) -> None:
        if self.policy is PortPolicy.ALLOW_ALL and self.ports:
            raise InvalidInput("protocols", "ALLOW_ALL takes no ports", hint="use RESTRICTED to list ports")
        if len(self.ports) > MAX_RANGES:
            raise InvalidInput("protocols", f"{len(self.ports)} port ranges, the limit is {MAX_RANGES}")

    def allows(self, port: int) -> bool:
        """Return whether `port` is open."""
        if self.policy is PortPolicy.ALLOW_ALL:
            return MIN_PORT <= port <= MAX_PORT
        return any(port in span for span in self.ports)

    def spans(self) -> tuple[PortRange, ...]:
        """Return the open ports as ranges; none for RESTRICTED without ports."""
        return (PortRange(MIN_PORT, MAX_PORT),) if self.policy is PortPolicy.ALLOW_ALL else self.ports

    @classmethod
    def of_spans(cls, spans: tuple[PortRange, ...]) -> PortRule:
        """Return the rule that has exactly these open ports."""
        if spans == (PortRange(MIN_PORT, MAX_PORT),):
            return cls()
        return cls(PortPolicy.RESTRICTED, spans)

    def covers(self, other: PortRule) -> bool:
        """Return whether every port that `other` allows is allowed here too."""
        merged: list[list[int]] = []
        for span in sorted(self.spans()):
            if merged and span.first <= merged[-1][1] + 1:
                merged[-1][1] = max(merged[-1][1], span.last)
            else:
                merged.append([span.first, span.last])
        return all(any(first <= span.first and span.last <= last for first, last in merged) for span in other.spans())


@dataclass(frozen=True, slots=True)
class Protocols:
    """What a resource allows; by default everything."""

    tcp: PortRule = PortRule()
    udp: PortRule = PortRule()
    allow_icmp: bool = True

    def rule(self, protocol: TransportProtocol) -> PortRule:
        """Return the rule of a protocol with ports; raises ValueError for ICMP, which has none."""
        if protocol is TransportProtocol.ICMP:
            raise ValueError("ICMP has no ports")
        return self.tcp if protocol is TransportProtocol.TCP else self.udp

    def allows(self, protocol: TransportProtocol, port: int) -> bool:
        """Return whether a flow of `protocol` to `port` (0 for ICMP) is allowed."""
        if protocol is TransportProtocol.ICMP:
            return self.allow_icmp and not port
        return self.rule(protocol).allows(port)


ALL_PROTOCOLS = Protocols()


def narrows(old: Protocols, new: Protocols) -> bool:
    """Return whether something that `old` allowed is not allowed by `new` any more."""
    return not new.tcp.covers(old.tcp) or not new.udp.covers(old.udp) or (old.allow_icmp and not new.allow_icmp)
