"""Grants: what a principal may reach, and the decision about one flow. Pure: client and connector both call it."""

from __future__ import annotations

from dataclasses import dataclass

from klinket.domain.flow import Destination, FlowFailure
from klinket.domain.identifiers import Kid, ServiceAccountUuid, SessionId
from klinket.domain.resource import Resource, ResourceIndex


@dataclass(frozen=True, slots=True)
class Principal:
    """Who holds a grant: one session, logged in with one key of one service account."""

    account: ServiceAccountUuid
    key: Kid
    session: SessionId


@dataclass(frozen=True, slots=True)
class Allowed:
    """The flow may pass, because of this resource."""

    resource: Resource


@dataclass(frozen=True, slots=True)
class Denied:
    """The flow may not pass; `text` is told to people."""

    failure: FlowFailure
    text: str


Decision = Allowed | Denied


def decide(resources: ResourceIndex, destination: Destination, *, now: float, expires_at: float) -> Decision:
    """Return whether a grant with these resources, valid until `expires_at`, lets a flow to `destination` pass."""
    if now >= expires_at:
        return Denied(FlowFailure.GRANT_EXPIRED, "the grant has expired")
    resource = resources.lookup(destination.host)
    if resource is None:
        return Denied(FlowFailure.NOT_GRANTED, f"no granted resource serves {destination.host}")
    if not resource.protocols.allows(destination.protocol, destination.port):
        return Denied(
            FlowFailure.NOT_GRANTED,
            f"resource {resource.name!r} does not open {destination.service}",
        )
    return Allowed(resource)
