"""Which addresses are captured: those of resources, without overlap, and what changed since the last time."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from klinket.client.capture import synthetic
from klinket.domain.address import IPNetwork

#: Addresses remembered after they are not granted any more; the oldest are forgotten first.
MAX_FORMER = 10_000
#: Addresses of klinket itself: the one its routes name as source, and those of the DNS stub (facts §3).
SOURCE = "100.95.0.250"
SOURCE6 = str(synthetic.PREFIX6[1])
STUBS = ("100.95.0.251", "100.95.0.252", "100.95.0.253", "100.95.0.254")
#: What stands for names.
SYNTHETIC = (synthetic.RANGE, synthetic.range_twins())


def maximal(networks: Iterable[IPNetwork]) -> frozenset[str]:
    """Return the networks that are in no other one, as texts; the zero networks as their halves.

    Two networks overlap only where one is in the other, so what remains does not overlap.
    """
    ordered = sorted((network.version, int(network.network_address), network.prefixlen) for network in networks)
    kept: list[str] = []
    last: tuple[int, int] = (0, -1)
    for version, start, length in ordered:
        bits = 32 if version == 4 else 128
        if (version, start) <= last:
            continue
        last = (version, start + (1 << (bits - length)) - 1)
        if length == 0:  # a default route, and an interval that nft does not take
            kept += [
                f"{ipaddress.ip_address(half << (bits - 1)) if version == 4 else ('::', '8000::')[half]}/1" for half in (0, 1)
            ]
        else:
            address = ipaddress.IPv4Address(start) if version == 4 else ipaddress.IPv6Address(start)
            kept.append(f"{address}/{length}")
    return frozenset(kept)


def capturable(network: IPNetwork) -> bool:
    """Return whether a resource's network can be another machine's: loopback, link-local and multicast addresses cannot."""
    return not (network.is_loopback or network.is_link_local or network.is_multicast)


@dataclass(frozen=True, slots=True)
class Difference:
    """Networks as texts, to take away and to add."""

    removed: frozenset[str]
    added: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.removed or self.added)


def difference(before: frozenset[str], after: frozenset[str]) -> Difference:
    """Return what makes `after` of `before`."""
    return Difference(before - after, after - before)


@dataclass(slots=True)
class Remembered:
    """Networks that are or were granted: what was granted once is never dialled past klinket."""

    _ever: dict[str, IPNetwork] = field(default_factory=dict)

    def take(self, granted: dict[str, IPNetwork]) -> bool:
        """Take over what is granted now, by text; returns whether anything changed."""
        changed = not granted.keys() <= self._ever.keys()
        for text, network in granted.items():
            self._ever.pop(text, None)
            self._ever[text] = network  # at the end: what is granted now is forgotten last
        for text in list(self._ever)[: max(0, len(self._ever) - len(granted) - MAX_FORMER)]:
            del self._ever[text]
            changed = True
        return changed

    def captured(self) -> frozenset[str]:
        """Return all of them and what stands for names, without overlap."""
        return maximal([*self._ever.values(), *SYNTHETIC])
