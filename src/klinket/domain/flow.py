"""A flow: one TCP connection, UDP association or run of ICMP echoes of a session, and the ways in which it can fail."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class TransportProtocol(Enum):
    TCP = "tcp"
    UDP = "udp"
    #: Echo requests and their replies, of ICMP or ICMPv6 by the family of the host. Has no ports: the port is 0.
    ICMP = "icmp"


#: The words for them on the wire and in stored rows.
PROTOCOLS = frozenset(protocol.value for protocol in TransportProtocol)


class FlowFailure(Enum):
    """Why a flow was refused or ended. The value is the code word told to people, logs and flow events.

    The number on the wire is in `wire.pipe.FAILURE_NUMBERS`; both only grow.
    """

    NOT_GRANTED = "not-granted"
    SERVICE_KEY_REVOKED = "service-key-revoked"
    SERVICE_KEY_EXPIRED = "service-key-expired"
    GRANT_EXPIRED = "grant-expired"
    NAME_NOT_FOUND = "name-not-found"
    REFUSED = "refused"
    TIMED_OUT = "timed-out"
    UNREACHABLE = "unreachable"
    ADDRESS_FORBIDDEN = "address-forbidden"
    THROTTLED = "throttled"
    DRAINING = "draining"
    RESET = "reset"
    CUT = "cut"
    NO_CONNECTOR = "no-connector"
    CONTROLLER_UNREACHABLE = "controller-unreachable"
    INTERNAL = "internal"
    ICMP_UNAVAILABLE = "icmp-unavailable"


#: What to do about a failure, where the one who sees it can do something.
HINTS: dict[FlowFailure, str] = {
    FlowFailure.NOT_GRANTED: "ask an admin to grant the resource, or the port, to this service account",
    FlowFailure.NAME_NOT_FOUND: "check the resource's address: the connector's resolver must know it",
    FlowFailure.REFUSED: "nothing listens on that port of the resource: check that the service runs",
    FlowFailure.TIMED_OUT: "check that the resource is up and that no firewall stands between the connector and it",
    FlowFailure.UNREACHABLE: "check the connector's routes to the resource",
    FlowFailure.ADDRESS_FORBIDDEN: "make a resource for the IP address itself",
    FlowFailure.ICMP_UNAVAILABLE: "let the connector's group ping, by sysctl net.ipv4.ping_group_range, or give it CAP_NET_RAW",
    FlowFailure.NO_CONNECTOR: "ask an admin to look at the connectors: klinket admin connector list",
}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a program wants to go. `host` is canonical: a lower-case name without final dot, or an address text.

    `port` is 0 for ICMP.
    """

    host: str
    port: int
    protocol: TransportProtocol

    @property
    def host_port(self) -> str:
        """Return host:port, an IPv6 address in brackets; for ICMP the host alone."""
        if self.protocol is TransportProtocol.ICMP:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def service(self) -> str:
        """Return what is asked of the host: "tcp port 443", "ICMP echo"."""
        return "ICMP echo" if self.protocol is TransportProtocol.ICMP else f"{self.protocol.value} port {self.port}"

    def __str__(self) -> str:
        return f"{self.protocol.value} {self.host_port}"
