"""Addresses that stand for names on this machine only: 100.96.0.0/12 (facts §4), one for each name asked for.

Each has a twin in a unique local prefix (RFC 4193): the same 32 bits at its end.
"""

from __future__ import annotations

import ipaddress

RANGE = ipaddress.ip_network("100.96.0.0/12")
#: Names whose connects are accepted at once get an address of this half.
FAST_RANGE = ipaddress.ip_network("100.104.0.0/13")
PREFIX6 = ipaddress.ip_network("fd6b:6c69:6e6b:e7::/96")
#: Names that get an address: the range without its first and its last address, which are a network's and its broadcast address.
MAX_NAMES = RANGE.num_addresses - 2
_HALF = RANGE.num_addresses // 2


def twin(address: str) -> str:
    """Return the IPv6 address that stands for the same name."""
    return str(PREFIX6[int(ipaddress.IPv4Address(address))])


def fast_twins() -> ipaddress.IPv6Network:
    """Return the twins of FAST_RANGE."""
    return ipaddress.IPv6Network((twin(str(FAST_RANGE[0])), 96 + FAST_RANGE.prefixlen))


def range_twins() -> ipaddress.IPv6Network:
    """Return the twins of RANGE."""
    return ipaddress.IPv6Network((twin(str(RANGE[0])), 96 + RANGE.prefixlen))


class SyntheticAddresses:
    """A table that only grows: an address once given keeps its meaning while the process lives.

    `halves`: the upper half of the range, FAST_RANGE, is for fast names only. `offset`: where in its half the first one is; at
    random, an address that a program kept from an earlier process leads nowhere instead of to another name.
    """

    def __init__(self, *, halves: bool = False, offset: int = 0) -> None:
        self._halves = halves
        self._offset = offset
        self._addresses: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._given = 0
        self._given_fast = 0

    def address_of(self, name: str, *, fast: bool = False) -> str | None:
        """Return the address of a canonical name, or None when all are given. `fast`: a new one is of FAST_RANGE (`halves`)."""
        address = self._addresses.get(name)
        if address is None:
            number = self._next(fast)
            if number is None:
                return None
            address = str(RANGE[number])
            self._addresses[name] = address
            self._names[address] = name
        return address

    def _next(self, fast: bool) -> int | None:
        # Neither the first nor the last address of the range, nor of a half, is given.
        room = min(_HALF - 2, MAX_NAMES) if self._halves else MAX_NAMES
        fast = fast and self._halves
        given = self._given_fast if fast else self._given
        if given >= room:
            return None
        if fast:
            self._given_fast += 1
        else:
            self._given += 1
        return (_HALF if fast else 0) + 1 + (given + self._offset) % room

    def name_of(self, address: str) -> str | None:
        """Return the name an address, or its twin, stands for, or None."""
        if ":" in address:
            number = int(ipaddress.IPv6Address(address)) - int(PREFIX6.network_address)
            if not 0 <= number < PREFIX6.num_addresses:
                return None
            address = str(ipaddress.IPv4Address(number))
        return self._names.get(address)

    def knows(self, name: str) -> bool:
        """Return whether a name was given an address."""
        return name in self._addresses

    def __contains__(self, address: str) -> bool:
        """Return whether an address lies in the range or among its twins, given or not."""
        parsed = ipaddress.ip_address(address)
        return parsed in RANGE or parsed in PREFIX6
