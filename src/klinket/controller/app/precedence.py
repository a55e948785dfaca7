"""Which other resources cover hosts of a resource, and which of two serves such a host.

What counts in the end is what a service was granted: of those resources, the one that wins here serves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ResourceRow
from klinket.domain.address import AddressKind, ResourceAddress
from klinket.domain.errors import InvalidInput
from klinket.domain.overlap import overlap

#: Other resources named on a page; the rest is counted.
MAX_NAMED = 10
#: Resources with wildcards that one with a wildcard is compared with.
MAX_PATTERNS = 500


class Why(Enum):
    """Why one of two resources serves what both cover."""

    ALIAS = "alias"
    MORE_SPECIFIC = "more specific"
    OLDER = "older"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Another resource. `wins`: it, not the one that is asked for, serves the hosts that both cover."""

    id: int
    name: str
    address: str
    wins: bool
    why: Why


@dataclass(frozen=True, slots=True)
class Overlaps:
    """`named`: those that win first, then by id; `total`: how many there are; `is_complete`: whether all were compared."""

    named: tuple[Overlap, ...]
    total: int
    is_complete: bool


def overlaps(tx: Transaction, row: ResourceRow) -> Overlaps:
    """Return the active resources that cover hosts of this one."""
    mine = ResourceAddress.parse(row.address)
    found: list[Overlap] = []
    patterns = 0
    for id, name, text, alias in tx.resources.pick(("id", "name", "address", "alias"), is_active=True):
        if id == row.id:
            continue
        try:
            theirs = ResourceAddress.parse(text)
        except InvalidInput:
            continue
        if AddressKind.WILDCARD is theirs.kind is mine.kind:
            patterns += 1
            if patterns > MAX_PATTERNS:
                continue
        decided = _decided(row.id, mine, row.alias, id, theirs, alias)
        if decided is not None:
            found.append(Overlap(id, name, text, *decided))
    found.sort(key=lambda one: (not one.wins, one.id))
    return Overlaps(tuple(found[:MAX_NAMED]), len(found), patterns <= MAX_PATTERNS)


def _decided(
    my_id: int, mine: ResourceAddress, my_alias: str | None, their_id: int, theirs: ResourceAddress, their_alias: str | None
) -> tuple[bool, Why] | None:
    """Return (whether the other wins, why), or None where both have no host in common."""
    if their_alias is not None and mine.matches(their_alias):
        return True, Why.ALIAS
    if overlap(mine, theirs):
        if mine.specificity != theirs.specificity:
            return theirs.specificity < mine.specificity, Why.MORE_SPECIFIC
        return their_id < my_id, Why.OLDER
    if my_alias is not None and theirs.matches(my_alias):
        return False, Why.ALIAS
    return None
