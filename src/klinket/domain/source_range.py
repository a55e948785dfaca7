"""Ranges of source addresses: what an API token may be used from.

IPv4 addresses inside IPv6 (`::ffff:192.0.2.7`, as a dual-stack socket shows them) count as the IPv4 they are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable

from klinket.domain.errors import InvalidInput

#: Ranges of one token.
MAX_RANGES = 64
_FIELD = "allowedRanges"
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
#: Longer than any address with a prefix length.
_MAX_CHARS = 64

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_ranges(texts: Iterable[str]) -> list[str]:
    """Return the ranges in their one spelling, each once, in the order given; raises InvalidInput("allowedRanges").

    `192.0.2.0/24`, `2001:db8::/32`, or one address. A network with bits set behind its prefix is refused: it is a typing error.
    """
    found = list(dict.fromkeys(str(_parse(text)) for text in texts))
    if len(found) > MAX_RANGES:
        raise InvalidInput(_FIELD, f"{len(found)} source ranges, the limit is {MAX_RANGES}")
    return found


def covers(ranges: Collection[str], address: str) -> bool:
    """Return whether an address lies in one of the ranges of `parse_ranges`; a text that is no address lies in none."""
    try:
        plain = ipaddress.ip_address(address.partition("%")[0])  # a link-local address may carry its interface
    except ValueError:
        return False
    if isinstance(plain, ipaddress.IPv6Address) and plain.ipv4_mapped is not None:
        plain = plain.ipv4_mapped
    return any(plain in ipaddress.ip_network(one) for one in ranges)


def within(inner: Collection[str], outer: Collection[str]) -> bool:
    """Return whether everything `inner` allows is allowed by `outer` too. No ranges at all: every address."""
    if not outer:
        return True
    merged = _merged(outer)
    return bool(inner) and all(any(_is_part(one, whole) for whole in merged) for one in map(ipaddress.ip_network, inner))


def _parse(text: str) -> _Network:
    try:
        network = ipaddress.ip_network(text.strip()[:_MAX_CHARS])
    except ValueError as error:
        hint = "write 192.0.2.0/24, 2001:db8::/32, or one address"
        raise InvalidInput(_FIELD, f"not a range of addresses: {text[:_MAX_CHARS]!r}", hint=hint) from error
    if isinstance(network, ipaddress.IPv6Network):
        if network.network_address.scope_id:
            raise InvalidInput(_FIELD, f"a range names no interface: {text[:_MAX_CHARS]!r}")
        if network.subnet_of(_MAPPED):
            mapped = network.network_address.ipv4_mapped
            return ipaddress.IPv4Network((int(mapped or 0), network.prefixlen - 96))
    return network


def _merged(ranges: Collection[str]) -> list[_Network]:
    """Return the ranges with neighbours joined: two halves cover the whole."""
    networks = [ipaddress.ip_network(one) for one in ranges]
    return [
        *ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv6Network)),
    ]


def _is_part(one: _Network, whole: _Network) -> bool:
    if isinstance(one, ipaddress.IPv4Network) and isinstance(whole, ipaddress.IPv4Network):
        return one.subnet_of(whole)
    return isinstance(one, ipaddress.IPv6Network) and isinstance(whole, ipaddress.IPv6Network) and one.subnet_of(whole)
