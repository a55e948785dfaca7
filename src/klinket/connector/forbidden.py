"""Addresses a name may not lead to: loopback, link-local, multicast, metadata services, the connector itself (security.md 17).

What counts is where a packet ends: IPv4 inside IPv6 (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) is taken out first.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator

from klinket.domain.address import AddressKind, IPAddress, IPNetwork, parse_ip
from klinket.domain.resource import Resource

#: Never where a resource is: this host, its link, groups, reserved space, and services of clouds that trust who is near.
SPECIAL: tuple[IPNetwork, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network (RFC 1122); Linux takes 0.0.0.0 for itself
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, metadata services of most clouds among them
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "100.100.100.200/32",  # Alibaba's metadata
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.192/32",  # Oracle's metadata, older form
        "::/128",
        "::1/128",
        "fe80::/10",
        "fec0::/10",  # site-local, deprecated; Linux treats it as local scope
        "ff00::/8",
        "64:ff9b:1::/48",  # NAT64 of a local network (RFC 8215): where it ends is not known here
        "fd00:ec2::/32",  # Amazon: metadata, DNS, time, pod identity
        "fd20:ce::/32",  # Google's metadata
        "fd00:c1::/32",  # Oracle's metadata
    )
)

_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: The last 64 bits of an ISATAP address begin like this (RFC 5214 §6.1), with the universal bit or without.
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


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
    return any(str(one) in own or any(one in special for special in SPECIAL) for one in _meanings(address))


def _inside(network: IPNetwork, special: IPNetwork) -> bool:
    return network.version == special.version and network.subnet_of(special)  # type: ignore[arg-type]


def _meanings(address: IPAddress) -> Iterator[IPAddress]:
    """Yield the address itself, and the IPv4 addresses a packet to it may end at."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    low = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1) or (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        yield low
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
