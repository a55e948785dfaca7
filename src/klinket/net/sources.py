"""Where connections come from, for counting."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

#: Leading bits of an IPv6 address that one customer holds: whoever has one address of them has all.
IPV6_SOURCE_BITS = 64
#: Addresses whose source is remembered: those that come again and again are parsed once.
MAX_REMEMBERED = 4_096


@lru_cache(MAX_REMEMBERED)
def source_of(address: str) -> str:
    """Return what an address counts as: itself, or for IPv6 its /64; IPv4 in IPv6 counts as IPv4."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), IPV6_SOURCE_BITS), strict=False))
    return str(parsed)
