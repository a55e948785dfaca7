"""Which other resources cover hosts of a resource, and which of two serves such a host.

What counts in the end is what a service was granted: of those resources, the one that wins here serves it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ResourceRow
from klinket.domain.address import AddressKind, ResourceAddress
from klinket.domain.errors import InvalidInput
from klinket.domain.overlap import overlap

#: Other resources named on a page; the rest is counted.
MAX_NAMED = 10
#: Resources with wildcards, or ranges, that one resource is compared with.
MAX_COMPARED = 500
#: What addresses and ranges are written with.
_NUMBERS = frozenset("0123456789abcdefABCDEF:./")
#: Id, name, address, alias.
_Candidate = tuple[int, str, str, str | None]


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
    candidates, is_complete = _candidates(tx, row, mine)
    for id, name, text, alias in candidates:
        if id == row.id:
            continue
        try:
            theirs = ResourceAddress.parse(text)
        except InvalidInput:
            continue
        decided = _decided(row.id, mine, row.alias, id, theirs, alias)
        if decided is not None:
            found.append(Overlap(id, name, text, *decided))
    found.sort(key=lambda one: (not one.wins, one.id))
    return Overlaps(tuple(found[:MAX_NAMED]), len(found), is_complete)


def _candidates(tx: Transaction, row: ResourceRow, mine: ResourceAddress) -> tuple[list[_Candidate], bool]:
    """Return the resources that could cover hosts of this one, and whether these are all of them.

    Most resources are one name or address: of those only what looks alike is read, and what covers many hosts.
    """
    if mine.kind in (AddressKind.CIDR, AddressKind.WILDCARD):
        return _inside(tx, mine)
    rows: dict[int, ResourceRow] = {}
    is_complete = True
    signs = ["/"] if mine.kind is AddressKind.IP else ["*", "?"]
    if row.alias is not None and mine.kind is AddressKind.IP:
        signs += ["*", "?"]
    texts = {mine.canonical, mine.text, row.alias or mine.canonical}
    looks = [tx.resources.matching("", (), is_active=True, holding={"address": sign}) for sign in signs]
    looks += [tx.resources.matching(text, ("address", "alias"), is_active=True) for text in texts]
    for look in looks:
        is_complete = is_complete and len(look) <= MAX_COMPARED
        rows |= {one.id: one for one in look[:MAX_COMPARED]}
    return [(one.id, one.name, one.address, one.alias) for one in rows.values()], is_complete


def _inside(tx: Transaction, mine: ResourceAddress) -> tuple[list[_Candidate], bool]:
    """Return what a range or a wildcard may overlap: all resources, but those that cannot at first sight."""
    candidates: list[_Candidate] = []
    patterns = 0
    ending = re.split(r"[*?]", mine.canonical)[-1]
    for id, name, text, alias in tx.resources.pick(("id", "name", "address", "alias"), is_active=True):
        if mine.kind is AddressKind.CIDR:
            is_near = _NUMBERS.issuperset(text)
        elif "*" in text or "?" in text:
            patterns += 1
            is_near = patterns <= MAX_COMPARED
        else:
            is_near = not text.isascii() or text.lower().removesuffix(".").endswith(ending)
            is_near = is_near or (alias is not None and alias.endswith(ending))
        if is_near:
            candidates.append((id, name, text, alias))
    return candidates, patterns <= MAX_COMPARED


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
