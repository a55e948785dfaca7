"""Is an export of the audit complete and unaltered? If not: which event is the first that is wrong.

Authentic are the digests in the controller's signatures, and what they lead back to: an event with an authentic digest names the
digest before it. Everything else in a file counts for nothing.

An audit begins with event 1, or where a signed anchor says that retention removed what was before. An export of a time range
begins where its trailer says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from klinket.domain.audit_chain import SignedAnchor, SignedBlock, SignedRange, digest_of
from klinket.domain.errors import AuditAltered, InvalidToken


class RecordKind(Enum):
    """What a line of an export is."""

    EVENT = "event"
    SIGNATURE = "signature"
    TRAILER = "trailer"
    ANCHOR = "anchor"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Record:
    """One line of an export, counted from 1, with what its kind has: an event as exported, or a signed token."""

    line: int
    kind: RecordKind
    event: Mapping[str, Any] | None = None
    token: str = ""


class FindingKind(Enum):
    """What was done to an export. `unproven`: a signature is missing or not valid; `cut`: its end is."""

    ALTERED = "altered"
    MISSING = "missing"
    INSERTED = "inserted"
    REORDERED = "reordered"
    UNPROVEN = "unproven"
    CUT = "cut"


class AuditNotIntact(AuditAltered):
    """`number`: the first event whose place holds something else than what the controller signed."""

    code = AuditAltered.code

    def __init__(self, kind: FindingKind, number: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.number = number


@dataclass(frozen=True, slots=True)
class _Found:
    """An event of the file. `digest`: None when it is not the one the event claims, or the line is unreadable."""

    line: int
    number: int | None
    digest: str | None
    previous: str | None


def refuse_anchors(_: str) -> SignedAnchor:
    """Open no anchor: for an audit that has to begin with its first event."""
    raise InvalidToken("no anchor is accepted here")


def verify(
    records: Iterable[Record],
    open_block: Callable[[str], SignedBlock],
    open_range: Callable[[str], SignedRange],
    open_anchor: Callable[[str], SignedAnchor] = refuse_anchors,
) -> SignedRange:
    """Return what the export holds; raises AuditNotIntact. `open_...` verify a token and raise InvalidToken."""
    found: list[_Found] = []
    anchors: list[SignedAnchor] = []
    blocks: list[SignedBlock] = []
    trailers: list[SignedRange] = []
    not_valid: list[int] = []
    for record in records:
        try:
            if record.kind is RecordKind.SIGNATURE:
                blocks.append(open_block(record.token))
            elif record.kind is RecordKind.TRAILER:
                trailers.append(open_range(record.token))
            elif record.kind is RecordKind.ANCHOR:
                anchors.append(open_anchor(record.token))
            else:
                found.append(_found(record))
        except InvalidToken:
            not_valid.append(record.line)
    trailer = trailers[0] if trailers else None
    if trailer is not None:
        _check_beginning(trailer, anchors)
    walk = _Walk(found, blocks, trailer)
    end = walk.run()
    covered = {number for block in blocks for number in range(block.first, block.last + 1)}
    for number in range(walk.first, end):
        if number not in covered:
            raise _finding(FindingKind.UNPROVEN, number, f"no valid signature of the controller covers event {number}")
    if trailer is None:
        raise _finding(FindingKind.CUT, end, f"no valid trailer follows event {end - 1}: what came after it may be cut off")
    if not_valid:
        raise _finding(FindingKind.UNPROVEN, end, f"line {not_valid[0]}: this signature is not valid")
    if len(trailers) > 1:
        raise _finding(FindingKind.CUT, end, f"there are {len(trailers)} trailers: this file is more than one export")
    if walk.digest_before(end) != trailer.digest:
        raise _finding(FindingKind.CUT, end, f"the trailer is of another audit: event {end - 1} is not the one it names")
    return trailer


def _check_beginning(whole: SignedRange, anchors: list[SignedAnchor]) -> None:
    """Raise AuditNotIntact unless an audit that begins later than with its first event may do so."""
    before = whole.first - 1
    if any((one.network, one.number, one.digest) != (whole.network, before, whole.previous) for one in anchors):
        raise _finding(FindingKind.UNPROVEN, whole.first, f"the anchor is not of the events before event {whole.first}")
    if before and not anchors and whole.begin_ms is None:
        text = "event 1 is missing" if before == 1 else f"events 1 to {before} are missing"
        raise _finding(FindingKind.MISSING, 1, f"{text}, and no valid anchor says that retention removed them")


def _finding(kind: FindingKind, number: int, message: str) -> AuditNotIntact:
    return AuditNotIntact(kind, number, message)


def _found(record: Record) -> _Found:
    event = record.event
    if event is None:
        return _Found(record.line, None, None, None)
    number, previous = event.get("number"), event.get("previous")
    try:
        digest: str | None = digest_of(event)
    except (ValueError, RecursionError):
        digest = None
    if event.get("digest") != digest:
        digest = None
    return _Found(record.line, number if type(number) is int else None, digest, previous if isinstance(previous, str) else None)


class _Walk:
    """Goes through the events in their order and stops at the first that is wrong."""

    def __init__(self, found: list[_Found], blocks: list[SignedBlock], trailer: SignedRange | None) -> None:
        self._found = found
        self._authentic = self._known(blocks, trailer)
        self._places: dict[int, list[int]] = defaultdict(list)
        for place, one in enumerate(found):
            if one.number is not None and self._is_authentic(one):
                self._places[one.number].append(place)
        self._last = trailer.last if trailer is not None else None
        if trailer is not None:
            self.first = trailer.first
        else:
            starts = list(self._places) or [one.number for one in found if one.number is not None]
            self.first = min(starts, default=1)

    def _known(self, blocks: list[SignedBlock], trailer: SignedRange | None) -> dict[int, str]:
        """Return the authentic digests by number: signed, and led back to from those."""
        known: dict[int, str] = {}
        for block in blocks:
            known.update(zip(range(block.first, block.last + 1), block.digests, strict=True))
        edges = [(block.first - 1, block.previous) for block in blocks]
        if trailer is not None:
            edges += [(trailer.last, trailer.digest), (trailer.first - 1, trailer.previous)]
        for number, digest in edges:
            known.setdefault(number, digest)
        before = {one.digest: one.previous for one in self._found if one.digest is not None}
        for start in list(known):
            number = start
            while number - 1 not in known and (previous := before.get(known[number])) is not None:
                number -= 1
                known[number] = previous
        return known

    def _is_authentic(self, one: _Found) -> bool:
        return one.digest is not None and one.number is not None and self._authentic.get(one.number) == one.digest

    def digest_before(self, number: int) -> str | None:
        """Return the authentic digest of the event before this number."""
        return self._authentic.get(number - 1)

    def run(self) -> int:
        """Return the number after the last event; raises AuditNotIntact."""
        number, unproven = self.first, None
        before = self._authentic.get(self.first - 1)
        for place, one in enumerate(self._found):
            wanted = self._authentic.get(number)
            right = one.digest == wanted if wanted is not None else self._follows(one, number, before)
            if not right or one.digest is None or (self._last is not None and number > self._last):
                raise self._wrong(place, number, unproven)
            if wanted is None and unproven is None:
                unproven = number
            before = one.digest
            number += 1
        if self._last is not None and number <= self._last:
            text = f"event {number} is missing" if number == self._last else f"events {number} to {self._last} are missing"
            raise _finding(FindingKind.MISSING, number, text)
        return number

    def _follows(self, one: _Found, number: int, before: str | None) -> bool:
        """Where no signature reaches, an event's own links are all there is to go by."""
        return one.number == number and (before is None or one.previous == before)

    def _wrong(self, place: int, number: int, unproven: int | None) -> AuditNotIntact:
        kind, text = self._told(place, number)
        if unproven is None:
            return _finding(kind, number, text)
        text = f"no valid signature of the controller covers event {unproven}; further on, {text}"
        return _finding(FindingKind.UNPROVEN, unproven, text)

    def _told(self, place: int, number: int) -> tuple[FindingKind, str]:
        one = self._found[place]
        where = f"line {one.line}"
        if self._last is not None and number > self._last:
            return FindingKind.INSERTED, f"{where}: something was inserted as event {number}, after the last one"
        comes_later = any(later > place for later in self._places.get(number, ()))
        if self._is_authentic(one):
            assert one.number is not None
            if one.number < number or len(self._places[one.number]) > 1:
                return FindingKind.INSERTED, f"{where}: a copy of event {one.number} was inserted before event {number}"
            if comes_later:
                return FindingKind.REORDERED, f"{where}: event {number} is out of order: event {one.number} stands in its place"
            return FindingKind.MISSING, f"{where}: event {number} is missing: event {one.number} stands in its place"
        if comes_later:
            return FindingKind.INSERTED, f"{where}: something was inserted before event {number}"
        if one.number is not None and one.number > number and one.number in self._authentic and not self._places[one.number]:
            return FindingKind.MISSING, f"{where}: event {number} is missing: what stands in its place was event {one.number}"
        return FindingKind.ALTERED, f"{where}: event {number} was altered"
