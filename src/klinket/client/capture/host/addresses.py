"""Which addresses are captured: those of resources, without overlap, and what changed since the last time."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
#: A zero network is a default route, and an interval that no set takes: its halves are neither.
_HALVES = {"0.0.0.0/0": ("0.0.0.0/1", "128.0.0.0/1"), "::/0": ("::/1", "8000::/1")}


#: A network as it sorts: IP version, first address, the last one negative, so that the larger of two comes first; its text.
_Span = tuple[int, int, int, str]


def _span(network: IPNetwork, text: str) -> _Span:
    first = int(network.network_address)
    return network.version, first, -(first + (1 << (network.max_prefixlen - network.prefixlen)) - 1), text


def maximal(networks: Mapping[str, IPNetwork]) -> frozenset[str]:
    """Return those of the networks, by their texts, that are in no other one; the zero networks as their halves."""
    return _maximal(_span(network, text) for text, network in networks.items())


def _maximal(spans: Iterable[_Span]) -> frozenset[str]:
    # Two networks overlap only where one is in the other, so it is enough to look at the last one that was kept.
    kept: list[str] = []
    last_version, last_end = 0, -1
    for version, first, negative_end, text in sorted(spans):
        if first <= last_end and version == last_version:
            continue
        last_version, last_end = version, -negative_end
        kept += _HALVES.get(text, (text,))
    return frozenset(kept)


def capturable(network: IPNetwork) -> bool:
    """Return whether a resource's network can be another machine's: loopback, link-local and multicast addresses cannot."""
    return _is_capturable(_span(network, ""))


def _is_capturable(span: _Span) -> bool:
    version, first, negative_end, _ = span
    return all(start > first or negative_end < end for start, end in _NO_OTHERS[version])


#: By IP version: the first address, and the last one negative.
_NO_OTHERS = {
    version: [_span(ipaddress.ip_network(text), text)[1:3] for text in texts]
    for version, texts in (
        (4, ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4")),
        (6, ("::1/128", "fe80::/10", "ff00::/8")),
    )
}


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


_SYNTHETIC_SPANS = [_span(network, str(network)) for network in SYNTHETIC]


class Remembered:
    """Networks that are or were granted: what was granted once is never dialled past klinket."""

    def __init__(self) -> None:
        self._ever: dict[str, _Span] = {}
        self._granted: frozenset[str] = frozenset()

    def take(self, granted: Mapping[str, IPNetwork]) -> bool:
        """Take over what is granted now, by text; returns whether anything changed. What is no other machine's is left out."""
        now = frozenset(granted)
        if now == self._granted:
            return False
        ended, self._granted = self._granted - now, now
        for text in ended:
            if (span := self._ever.pop(text, None)) is not None:
                self._ever[text] = span  # at the end: what was granted last is forgotten last
        changed = False
        for text in now - self._ever.keys():
            if _is_capturable(span := _span(granted[text], text)):
                self._ever[text] = span
                changed = True
        former = [text for text in self._ever if text not in now] if len(self._ever) > MAX_FORMER else []
        for text in former[: max(0, len(former) - MAX_FORMER)]:
            del self._ever[text]
            changed = True
        return changed

    def captured(self) -> frozenset[str]:
        """Return all of them and what stands for names, without overlap."""
        return _maximal([*self._ever.values(), *_SYNTHETIC_SPANS])
