"""Why an address is reached, or why not: the same steps in the same words, whether a client tries them or an admin looks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from klinket.domain.address import AddressKind
from klinket.domain.flow import Destination, TransportProtocol
from klinket.domain.resource import Resource

#: Resources named that lost by precedence.
MAX_LOST = 5


class StepName(Enum):
    """What is asked for on the way to an address, in this order."""

    KEY = "key"
    ACCOUNT = "account"
    RESOURCE = "resource"
    GRANT = "grant"
    PATH = "path"
    CONNECTOR = "connector"
    DNS = "dns"
    DIAL = "dial"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `evidence`: what was seen, a line each; `hint`: what to do, where it is not ok.

    `code`: the code word of what failed; its exit code is that of `klinket explain`.
    """

    name: StepName
    ok: bool
    text: str
    evidence: tuple[str, ...] = ()
    hint: str | None = None
    code: str | None = None


def served_by(resource: Resource, host: str) -> str:
    """Return by what a resource serves a canonical host."""
    if host == resource.alias:
        return f"alias {host}"
    kind = {AddressKind.CIDR: "range", AddressKind.WILDCARD: "pattern"}.get(resource.address.kind, "address")
    return f"{kind} {resource.address.text}"


def found_resource(serving: tuple[Resource, ...], host: str) -> Step:
    """Return the step of the resource that serves a host. `serving`: as ResourceIndex.serving says, at least one."""
    winner, *others = serving
    lost = tuple(_lost(other, winner, host) for other in others[:MAX_LOST])
    more = (f"{len(others) - MAX_LOST} more lost",) if len(others) > MAX_LOST else ()
    return Step(StepName.RESOURCE, True, f"resource {winner.name!r} serves {host} by its {served_by(winner, host)}", lost + more)


def _lost(loser: Resource, winner: Resource, host: str) -> str:
    if host == winner.alias:
        why = "the same alias, and a later resource" if host == loser.alias else "an alias comes first"
    elif winner.address.kind in (AddressKind.IP, AddressKind.NAME):
        exact = loser.address.kind in (AddressKind.IP, AddressKind.NAME)
        why = "the same address, and a later resource" if exact else "the address itself comes before ranges and patterns"
    elif winner.address.specificity == loser.address.specificity:
        why = "as narrow, and a later resource"
    else:
        why = "the narrower one comes first"
    return f"resource {loser.name!r} ({served_by(loser, host)}) lost: {why}"


def opens(resource: Resource, destination: Destination) -> Step:
    """Return the step that asks whether a resource opens a destination's port, or ICMP echo."""
    wanted = destination.service
    if resource.protocols.allows(destination.protocol, destination.port):
        return Step(StepName.GRANT, True, f"resource {resource.name!r} opens {wanted}")
    if destination.protocol is TransportProtocol.ICMP:
        evidence = "ICMP is off"
    else:
        spans = resource.protocols.rule(destination.protocol).spans()
        evidence = f"open {destination.protocol.value} ports: {', '.join(map(str, spans)) or 'none'}"
    return Step(
        StepName.GRANT,
        False,
        f"resource {resource.name!r} does not open {wanted}",
        (evidence,),
        code="not-granted",
    )
