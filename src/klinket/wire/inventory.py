"""Resources on the wire: between domain.resource.Resource and control.ResourceEntry."""

from __future__ import annotations

from klinket.domain.address import ResourceAddress, parse_alias
from klinket.domain.errors import InvalidInput, ProtocolError
from klinket.domain.identifiers import RemoteNetworkId, ResourceId
from klinket.domain.ports import PortRange, PortRule, Protocols
from klinket.domain.resource import Resource
from klinket.wire.control import PortSpan, ResourceEntry


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
