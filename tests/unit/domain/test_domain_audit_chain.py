"""An export of the audit proves itself: whatever is done to one, the first event that is wrong is named."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from klinket.domain.audit import Actor, ActorType, AuditAction, AuditEvent, RequestIds
from klinket.domain.audit_chain import BEGINNING, SignedAnchor, SignedBlock, SignedRange, digest_of, exported
from klinket.domain.audit_verification import AuditNotIntact, FindingKind, Record, RecordKind, verify
from klinket.domain.errors import InvalidToken

NETWORK = "acme"
Event = dict[str, Any]
ALTERED, MISSING, INSERTED = FindingKind.ALTERED, FindingKind.MISSING, FindingKind.INSERTED
REORDERED, UNPROVEN, CUT = FindingKind.REORDERED, FindingKind.UNPROVEN, FindingKind.CUT


def event(number: int, previous: str) -> Event:
    actor = Actor(ActorType.API, "7", "terraform", "192.0.2.7", RequestIds(f"try-{number}", "run-1", "TwingateTF/4"))
    target = {"version": "1", "type": "serviceAccount", "id": str(number), "name": f"ci-{number} ü"}
    made = exported(
        AuditEvent(AuditAction.EDIT, actor, (target,), {"before": {"name": "ci", "ports": [1, 2]}}),
        number=number,
        time_ms=1_800_000_000_000 + number,
        previous=previous,
    )
    return {**made, "digest": digest_of(made)}


@dataclass
class Export:
    """The lines of an export: events, and tokens as texts; `signed` is all that was ever signed."""

    lines: list[Event | str]
    signed: dict[str, SignedBlock | SignedRange | SignedAnchor]
    first: int
    last: int
    per_block: int
    blocks: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, first: int, last: int, per_block: int) -> Export:
        """Return the export of events `first` to `last` of an audit whose events are signed in blocks of `per_block`."""
        total = -(-last // per_block) * per_block
        chain: list[Event] = []
        for number in range(1, total + 1):
            chain.append(event(number, chain[-1]["digest"] if chain else BEGINNING))
        digests = [BEGINNING, *(one["digest"] for one in chain)]
        made = cls([], {}, first, last, per_block)
        for number in range(first, last + 1):
            made.lines.append(chain[number - 1])
            if number % per_block == 0 or number == last:
                begin = (number - 1) // per_block * per_block + 1
                token = f"block {begin}"
                block = SignedBlock(NETWORK, begin, digests[begin - 1], tuple(digests[begin : begin + per_block]), 1)
                made.signed[token] = block
                made.blocks.append(token)
                made.lines.append(token)
        made.signed["trailer"] = SignedRange(
            NETWORK, first, last, digests[first - 1], digests[last], 0 if first > 1 else None, None, 1
        )
        made.lines.append("trailer")
        return made

    def copy(self) -> Export:
        return Export(copy.deepcopy(self.lines), self.signed, self.first, self.last, self.per_block, self.blocks)

    def place(self, number: int) -> int:
        """Return the line of an event."""
        return next(at for at, line in enumerate(self.lines) if isinstance(line, dict) and line["number"] == number)

    def recompute(self, from_number: int) -> None:
        """Make digests and links right again, as an attacker would who cannot sign."""
        previous = None
        for line in self.lines:
            if isinstance(line, dict):
                if line["number"] >= from_number:
                    line["previous"] = previous if previous is not None and line["number"] > from_number else line["previous"]
                    line["digest"] = digest_of(line)
                previous = line["digest"]

    def verify(self) -> SignedRange:
        def opened(token: str, kind: type[Any]) -> Any:
            found = self.signed.get(token)
            if not isinstance(found, kind):
                raise InvalidToken("not signed")
            return found

        records = []
        for number, line in enumerate(self.lines, 1):
            if isinstance(line, dict):
                records.append(Record(number, RecordKind.EVENT, json.loads(json.dumps(line))))
            else:
                kind = {"trailer": RecordKind.TRAILER, "anchor": RecordKind.ANCHOR}.get(line.split()[0], RecordKind.SIGNATURE)
                records.append(Record(number, kind, token=line))
        return verify(
            records,
            lambda token: opened(token, SignedBlock),
            lambda token: opened(token, SignedRange),
            lambda token: opened(token, SignedAnchor),
        )

    def finding(self) -> tuple[FindingKind, int]:
        with pytest.raises(AuditNotIntact) as raised:
            self.verify()
        assert str(raised.value.number) in raised.value.message or raised.value.kind in (CUT, UNPROVEN)
        return raised.value.kind, raised.value.number


@pytest.mark.parametrize(
    ("first", "last", "per_block"), [(1, 1, 1), (1, 30, 10), (1, 37, 10), (13, 37, 10), (4, 6, 10), (5, 5, 1)]
)
def test_an_untouched_export_is_accepted(first: int, last: int, per_block: int) -> None:
    whole = Export.of(first, last, per_block).verify()
    assert (whole.first, whole.last, whole.network) == (first, last, NETWORK)


def test_an_export_without_events_is_accepted_and_nothing_can_be_put_in() -> None:
    export = Export.of(1, 10, 10)
    export.signed["trailer"] = SignedRange(NETWORK, 11, 10, "aa" * 32, "aa" * 32, 0, None, 1)
    export.lines = ["trailer"]
    export.verify()
    export.lines = [event(11, "aa" * 32), "trailer"]
    assert export.finding() == (INSERTED, 11)


# ---- manipulations: each returns what has to be found

Manipulation = Callable[[Export, random.Random], tuple[FindingKind, int]]


def some(export: Export, dice: random.Random, *, spare: int = 0) -> int:
    return dice.randint(export.first, export.last - spare)


def alter_a_field(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    number = some(export, dice)
    line = export.lines[export.place(number)]
    assert isinstance(line, dict)
    name = dice.choice(sorted(line))
    new: dict[str, Any] = {
        "version": "2", "number": dice.choice([number + 1, 0, -1, 10**9, True, "1", None, 1.5]), "time": "2026-01-01T00:00:00Z",
        "actor": {"type": "User", "id": None, "info": None}, "action": "delete", "targets": [], "source": None,
        "request": None, "detail": {}, "previous": dice.choice(["ff" * 32, None, 5]), "digest": dice.choice(["ee" * 32, None]),
    }  # fmt: skip
    if dice.random() < 0.2:
        del line[name]
    else:
        line[name] = new[name]
    return ALTERED, number


def alter_a_field_and_its_digest(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    number = some(export, dice)
    line = export.lines[export.place(number)]
    assert isinstance(line, dict)
    line["actor"] = {"type": "System", "id": None, "info": None}
    line["digest"] = digest_of(line)
    return ALTERED, number


def alter_a_field_and_every_digest_after_it(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    number = some(export, dice)
    line = export.lines[export.place(number)]
    assert isinstance(line, dict)
    line["detail"] = {"nothing": "happened"}
    export.recompute(number)
    return ALTERED, number


def remove_one(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    number = some(export, dice)
    del export.lines[export.place(number)]
    return MISSING, number


def remove_one_and_count_anew(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    """The event that took its place is not the one that was signed: that is all a reader can see."""
    number = some(export, dice, spare=1)
    del export.lines[export.place(number)]
    for line in export.lines:
        if isinstance(line, dict) and line["number"] > number:
            line["number"] -= 1
    export.recompute(number)
    return ALTERED, number


def swap_two(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    one, two = sorted(dice.sample(range(export.first, export.last + 1), 2))
    here, there = export.place(one), export.place(two)
    export.lines[here], export.lines[there] = export.lines[there], export.lines[here]
    return REORDERED, one


def move_one(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    number, to = dice.sample(range(export.first, export.last + 1), 2)
    target = export.place(to)
    export.lines.insert(target, export.lines.pop(export.place(number)))
    order = [line["number"] for line in export.lines if isinstance(line, dict)]
    wrong = next((at for at, found in enumerate(order, export.first) if at != found), None)
    if wrong is None:  # it was moved to where it stood
        return swap_two(export, dice)
    return REORDERED, wrong


def duplicate_one(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    number, before = some(export, dice), some(export, dice)
    export.lines.insert(export.place(before), copy.deepcopy(export.lines[export.place(number)]))
    return INSERTED, before + 1 if before == number else before


def insert_a_forged_one(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    before = some(export, dice)
    forged = event(dice.choice([before, before + 1, 10**6]), dice.choice([BEGINNING, "ab" * 32]))
    export.lines.insert(export.place(before), forged)
    return INSERTED, before


def append_a_forged_one(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    last = export.lines[export.place(export.last)]
    assert isinstance(last, dict)
    export.lines.insert(len(export.lines) - dice.randint(0, 1), event(export.last + 1, last["digest"]))
    return INSERTED, export.last + 1


def cut_the_head_off(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    del export.lines[: export.place(some(export, dice, spare=1)) + 1]
    return MISSING, export.first


def cut_the_tail_off(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    number = some(export, dice)
    export.lines = [
        line for line in export.lines if not (isinstance(line, dict) and line["number"] >= number) and line != export.blocks[-1]
    ]
    return MISSING, number


def cut_the_tail_off_with_its_trailer(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    """Cut where a block of signatures ends: what is left is right in itself."""
    number = dice.choice([at for at in range(export.first, export.last) if at % export.per_block == 0])
    del export.lines[export.place(number) + 2 :]
    return CUT, number + 1


def remove_the_trailer(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    export.lines.remove("trailer")
    return CUT, export.last + 1


def forge_the_trailer(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    export.lines[-1] = "trailer forged"
    return CUT, export.last + 1


def remove_a_signature(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    token = dice.choice(export.blocks)
    export.lines.remove(token)
    block = export.signed[token]
    return UNPROVEN, max(block.first, export.first)


def forge_a_signature(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    token = dice.choice(export.blocks)
    export.lines[export.lines.index(token)] = "block forged"
    block = export.signed[token]
    return UNPROVEN, max(block.first, export.first)


def remove_a_signature_and_alter_what_it_covered(export: Export, dice: random.Random) -> tuple[FindingKind, int]:
    """Without the signature nobody can tell the altered event from those before it: the first that is not proven is named."""
    token = dice.choice(export.blocks[:-1])
    export.lines.remove(token)
    block = export.signed[token]
    begin = max(block.first, export.first)
    number = dice.randint(begin + 1, block.last)
    line = export.lines[export.place(number)]
    assert isinstance(line, dict)
    line["detail"] = {"nothing": "happened"}
    export.recompute(number)
    return UNPROVEN, begin


MANIPULATIONS: list[Manipulation] = [
    alter_a_field, alter_a_field, alter_a_field, alter_a_field_and_its_digest, alter_a_field_and_every_digest_after_it,
    alter_a_field_and_every_digest_after_it, remove_one, remove_one_and_count_anew, swap_two, move_one, duplicate_one,
    insert_a_forged_one, append_a_forged_one, cut_the_head_off, cut_the_tail_off, cut_the_tail_off_with_its_trailer,
    remove_the_trailer, forge_the_trailer, remove_a_signature, forge_a_signature, remove_a_signature_and_alter_what_it_covered,
]  # fmt: skip
EXPORTS = [Export.of(1, 45, 10), Export.of(7, 52, 10), Export.of(1, 40, 5)]


@pytest.mark.parametrize("seed", range(105))
def test_the_first_wrong_event_of_a_manipulated_export_is_named(seed: int) -> None:
    """Five rounds of every kind of manipulation, at places that the seed chooses."""
    dice = random.Random(seed)
    manipulation = MANIPULATIONS[seed % len(MANIPULATIONS)]
    export = EXPORTS[seed // len(MANIPULATIONS) % len(EXPORTS)].copy()
    export.verify()
    wanted = manipulation(export, dice)
    assert export.finding() == wanted, manipulation.__name__


def test_of_two_manipulations_the_first_is_named() -> None:
    export = EXPORTS[0].copy()
    del export.lines[export.place(30)]
    line = export.lines[export.place(12)]
    assert isinstance(line, dict)
    line["action"] = "delete"
    export.lines.remove(export.blocks[3])
    assert export.finding() == (ALTERED, 12)


def test_two_exports_in_one_file_are_not_one() -> None:
    export = EXPORTS[0].copy()
    export.lines.append("trailer")
    assert export.finding() == (CUT, export.last + 1)


def test_a_trailer_of_another_life_of_the_audit_is_noticed() -> None:
    """A database restored from a backup counts on from where the backup was made."""
    export = EXPORTS[0].copy()
    trailer = export.signed["trailer"]
    assert isinstance(trailer, SignedRange)
    export.signed = {**export.signed, "trailer": SignedRange(NETWORK, 1, 45, BEGINNING, "ab" * 32, None, None, 1)}
    assert export.finding() == (CUT, 46)


def test_the_digest_does_not_depend_on_the_order_of_members() -> None:
    one = event(1, BEGINNING)
    assert digest_of(dict(reversed(one.items()))) == one["digest"]


def pruned(first: int, last: int, per_block: int) -> Export:
    """Return the export of a whole audit whose events before `first` retention removed."""
    export = Export.of(first, last, per_block)
    trailer = export.signed["trailer"]
    assert isinstance(trailer, SignedRange)
    export.signed["trailer"] = replace(trailer, begin_ms=None)
    export.signed["anchor"] = SignedAnchor(NETWORK, first - 1, trailer.previous, 1_800_000_000_000, 1)
    export.lines.insert(0, "anchor")
    return export


@pytest.mark.parametrize(("first", "last", "per_block"), [(11, 30, 10), (2, 2, 1), (11, 13, 10)])
def test_an_audit_may_begin_at_a_signed_anchor(first: int, last: int, per_block: int) -> None:
    assert pruned(first, last, per_block).verify().first == first


def test_a_whole_audit_that_begins_later_without_an_anchor_is_refused() -> None:
    export = pruned(11, 30, 10)
    del export.lines[0]
    assert export.finding() == (MISSING, 1)
    export.lines.insert(0, "anchor nobody signed")
    assert export.finding() == (MISSING, 1)


@pytest.mark.parametrize("wrong", [{"number": 9}, {"number": 11}, {"digest": "ab" * 32}, {"network": "other"}])
def test_an_anchor_of_another_place_is_refused(wrong: dict[str, Any]) -> None:
    export = pruned(11, 30, 10)
    anchor = export.signed["anchor"]
    assert isinstance(anchor, SignedAnchor)
    export.signed["anchor"] = replace(anchor, **wrong)
    assert export.finding() == (UNPROVEN, 11)


def test_an_anchor_hides_no_event_that_is_gone_after_it() -> None:
    export = pruned(11, 30, 10)
    del export.lines[1]
    assert export.finding() == (MISSING, 11)


def test_a_second_anchor_of_earlier_events_is_refused() -> None:
    export = pruned(21, 30, 10)
    export.signed["anchor 10"] = SignedAnchor(NETWORK, 10, event(10, BEGINNING)["digest"], 1, 1)
    export.lines.insert(0, "anchor 10")
    assert export.finding() == (UNPROVEN, 21)
