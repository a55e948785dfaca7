"""Addresses that stand for names on this machine only: 100.96.0.0/12 (facts §4), one for each name asked for."""

from __future__ import annotations

import ipaddress

RANGE = ipaddress.ip_network("100.96.0.0/12")
#: Names that get an address: the range without its first and its last address, which are a network's and its broadcast address.
MAX_NAMES = RANGE.num_addresses - 2


class SyntheticAddresses:
    """A table that only grows: an address once given keeps its meaning while the process lives."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def address_of(self, name: str) -> str | None:
        """Return the address of a canonical name, or None when all MAX_NAMES are given."""
        address = self._addresses.get(name)
        if address is None:
            if len(self._addresses) >= MAX_NAMES:
                return None
            address = str(RANGE[len(self._addresses) + 1])
            self._addresses[name] = address
            self._names[address] = name
        return address

    def name_of(self, address: str) -> str | None:
        """Return the name an address stands for, or None."""
        return self._names.get(address)

    def knows(self, name: str) -> bool:
        """Return whether a name was given an address."""
        return name in self._addresses

    def __contains__(self, address: str) -> bool:
        """Return whether an address lies in the range, given or not."""
        return ipaddress.ip_address(address) in RANGE
