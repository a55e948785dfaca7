"""Whether two resource addresses have a host in common, and which of two resources serves it (facts §4)."""

from __future__ import annotations

import re

from klinket.domain.address import AddressKind, ResourceAddress

_STARS = re.compile(r"\*+")


def overlap(one: ResourceAddress, other: ResourceAddress) -> bool:
    """Return whether some host is served by both."""
    if one.network is not None and other.network is not None:
        return one.network.version == other.network.version and one.network.overlaps(other.network)
    if one.network is not None or other.network is not None:
        return False  # names and addresses are never compared
    if AddressKind.NAME in (one.kind, other.kind):
        name, pattern = (one, other) if one.kind is AddressKind.NAME else (other, one)
        return pattern.matches(name.canonical)
    return _patterns_meet(_STARS.sub("*", one.canonical), _STARS.sub("*", other.canonical))


def _patterns_meet(one: str, other: str) -> bool:
    """Return whether some text fits both patterns, in time that grows with the product of their lengths."""
    if not _ends_agree(one, other) or not _ends_agree(one[::-1], other[::-1]):
        return False
    # meets[j]: the part of `one` read so far and other[:j] have a text in common. A star takes nothing, or one more sign.
    meets = [True]
    for sign in other:
        meets.append(meets[-1] and sign == "*")
    for mine in one:
        row = [meets[0] and mine == "*"]
        for j, theirs in enumerate(other):
            if mine == "*":
                row.append(meets[j + 1] or row[j])
            elif theirs == "*":
                row.append(row[j] or meets[j + 1])
            else:
                row.append(meets[j] and (mine == theirs or "?" in (mine, theirs)))
        meets = row
    return meets[-1]


def _ends_agree(one: str, other: str) -> bool:
    """Return False where the beginnings before the first star contradict each other: most pairs are told apart by that."""
    for mine, theirs in zip(one, other, strict=False):
        if "*" in (mine, theirs):
            return True
        if mine != theirs and "?" not in (mine, theirs):
            return False
    return True
