"""Addresses a name may not lead to: loopback, link-local, multicast, metadata services, the connector itself (security.md 17)."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from klinket.domain.address import AddressKind, parse_ip
from klinket.domain.resource import Resource

#: Metadata services that are not link-local.
_METADATA = {ipaddress.ip_address(text) for text in ("100.100.100.200", "fd00:ec2::254", "192.0.0.192")}


def granted_by_address(resource: Resource, host: str) -> bool:
    """Return whether the resource itself names the address `host`, by IP or CIDR."""
    return resource.address.kind in (AddressKind.IP, AddressKind.CIDR) and resource.address.matches(host)


def is_forbidden(text: str, own: Collection[str]) -> bool:
    """Return whether a resolved address may not be dialled; `own`: this machine's addresses."""
    address = parse_ip(text.partition("%")[0])
    if address is None:
        return True
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address in _METADATA
        or str(address) in own
    )
