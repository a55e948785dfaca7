"""Resources, connectors and relays as messages and tokens name them; and resources to and from domain.resource.Resource.

Fields are only ever added, with a default: an older peer ignores what it does not know. (docs/reference/control.md)
"""

from __future__ import annotations

import msgspec

from klinket.domain.address import ResourceAddress, parse_alias
from klinket.domain.errors import InvalidInput, ProtocolError
from klinket.domain.identifiers import RemoteNetworkId, ResourceId
from klinket.domain.ports import PortRange, PortRule, Protocols
from klinket.domain.resource import Resource


class PortSpan(msgspec.Struct, frozen=True, array_like=True):
    """Ports `first` to `last`, both included."""

    first: int
    last: int


class ResourceEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A resource in a grant, cut or configuration. `tcp`/`udp`: allowed port spans; an empty list allows none."""

    id: int
    name: str
    address: str
    remote_network: int
    alias: str | None = None
    tcp: list[PortSpan] = []
    udp: list[PortSpan] = []
    icmp: bool = False
    visible: bool = True


class RelayEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A relay: `address` is host:port, `certificate_sha256` the hex digest of its pinned certificate (DER)."""

    id: int
    address: str
    certificate_sha256: str


class RelayTicket(msgspec.Struct, frozen=True, kw_only=True):
    relay: int
    token: str
    expires_at_ms: int


class ConnectorEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A connector a client may use, and the relays it is attached to.

    `jkt`: thumbprint of the one key it may prove (RFC 7638); "": it has none, and nobody is to be believed.
    `direct`: host:port where it listens itself; who is there, the handshake of a link tells. `punches`: it takes Punch.
    """

    id: int
    name: str
    remote_network: int
    relays: list[int] = []
    online: bool = True
    jkt: str = ""
    direct: list[str] = []
    punches: bool = False


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The grant token of one remote network (wire.grant_token)."""

    remote_network: int
    token: str
    expires_at_ms: int


def entry_of(resource: Resource) -> ResourceEntry:
    """Return the wire form of a resource."""
    return ResourceEntry(
        id=resource.id,
        name=resource.name,
        address=resource.address.text,
        remote_network=resource.remote_network,
        alias=resource.alias,
        tcp=[PortSpan(span.first, span.last) for span in resource.protocols.tcp.spans()],
        udp=[PortSpan(span.first, span.last) for span in resource.protocols.udp.spans()],
        icmp=resource.protocols.allow_icmp,
        visible=resource.is_visible,
    )


def resource_of(entry: ResourceEntry) -> Resource:
    """Return the resource of a wire form; raises ProtocolError when it breaks a rule of the domain."""
    try:
        return Resource(
            ResourceId(entry.id),
            entry.name,
            ResourceAddress.parse(entry.address),
            RemoteNetworkId(entry.remote_network),
            parse_alias(entry.alias) if entry.alias is not None else None,
            Protocols(_rule(entry.tcp), _rule(entry.udp), entry.icmp),
            entry.visible,
        )
    except InvalidInput as error:
        raise ProtocolError(f"resource {entry.id}: {error.message}") from error


def _rule(spans: list[PortSpan]) -> PortRule:
    return PortRule.of_spans(tuple(PortRange(span.first, span.last) for span in spans))
