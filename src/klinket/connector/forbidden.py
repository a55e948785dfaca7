"""Addresses a name may not lead to: loopback, link-local, multicast, metadata services, the connector itself (security.md 17).

What counts is where a packet ends: IPv4 inside IPv6 is taken out first (domain/special_ranges.py).
"""

from __future__ import annotations

from collections.abc import Collection

from klinket.domain.address import AddressKind, IPNetwork, parse_ip
from klinket.domain.resource import Resource
from klinket.domain.special_ranges import SPECIAL, meanings


def granted_by_address(resource: Resource, host: str) -> bool:
    """Return whether the resource names the address `host` so that even a forbidden one is meant.

    That is a single IP, or a range that lies inside of one special range: 127.0.0.0/24 means loopback, 0.0.0.0/0 does not.
    """
    if resource.address.kind is AddressKind.IP:
        return resource.address.matches(host)
    network = resource.address.network
    if resource.address.kind is not AddressKind.CIDR or network is None or not resource.address.matches(host):
        return False
    return any(_inside(network, special) for special in SPECIAL)


def is_forbidden(text: str, own: Collection[str]) -> bool:
    """Return whether a resolved address may not be dialled; `own`: this machine's addresses."""
    address = parse_ip(text.partition("%")[0])
    if address is None:
        return True
    return any(str(one) in own or any(one in special for special in SPECIAL) for one in meanings(address))


def _inside(network: IPNetwork, special: IPNetwork) -> bool:
    return network.version == special.version and network.subnet_of(special)  # type: ignore[arg-type]
