"""Ranges that are near whoever dials, not where a packet is meant to go; and where a packet to an IPv6 address may end.

One table for all that is dialled on the word of others: by connectors (security.md 17) and by the controller (security.md 26).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from klinket.domain.address import IPAddress, IPNetwork

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
        "3fff::/20",  # documentation (RFC 9637)
        "5f00::/16",  # segment identifiers of one operator (RFC 9602)
    )
)

_COMPATIBLE = ipaddress.IPv6Network("::/96")
#: Of stateless translators (RFC 2765; Linux takes such an address for any other, a translator on the way does not).
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: The last 64 bits of an ISATAP address begin like this (RFC 5214 §6.1), with the universal bit or without.
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def meanings(address: IPAddress) -> Iterator[IPAddress]:
    """Yield the address itself, and the IPv4 addresses it may end at: compatible, translated, NAT64, 6to4, Teredo, ISATAP.

    Mapped addresses are plain IPv4 already (address.parse_ip).
    """
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    low = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    holds = address in _NAT64 or address in _TRANSLATED or (address in _COMPATIBLE and int(address) > 1)
    if holds or (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        yield low
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
