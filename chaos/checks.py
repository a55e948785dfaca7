"""What must hold at the end of the flows, whatever has struck."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from chaos.exchange import Outcome
from chaos.load import Load
from chaos.world import World

NEVER = ("truncated", "altered", "hanging")


@dataclass(frozen=True)
class Check:
    """`breaches` yields a sentence for each breach of the rule."""

    rule: str
    breaches: Callable[[World, Load], Iterator[str]]


def _no_end_saw_what_must_never_be(world: World, load: Load) -> Iterator[str]:
    for side, outcomes in (("program", load.outcomes), ("service", world.service.outcomes)):
        for number, found in outcomes.items():
            if found.word in NEVER:
                ends = [(one.get(number) or Outcome("unknown")).word for one in (load.outcomes, world.service.outcomes)]
                yield f"flow {number}: the {side}'s end is {found.word} (program {ends[0]}, service {ends[1]})"


def _unnamed_ends_are_errors_or_empty(world: World, load: Load) -> Iterator[str]:
    counts = Counter(one.word for one in world.service.unnamed)
    for word in NEVER:
        if counts[word] > 0:
            yield f"{counts[word]} connections of the service ended as {word} before their first bytes"


def _what_a_program_has_whole_the_service_had_whole(world: World, load: Load) -> Iterator[str]:
    # The other way round nobody can know: the last bytes of the service, or the program's end, may be lost on the way.
    for number, found in load.outcomes.items():
        other = world.service.outcomes.get(number)
        if found.word == "whole" and (other is None or other.word not in ("whole", "error")):
            yield f"flow {number}: whole for the program, {other.word if other else 'unknown'} for the service"


def _every_end_has_ended(world: World, load: Load) -> Iterator[str]:
    if world.service.live:
        yield f"{world.service.live} connections of the service are still open"


def _flows_were_carried(world: World, load: Load) -> Iterator[str]:
    words = Counter(one.word for one in load.outcomes.values())
    if not words["whole"]:
        yield f"it was no trial: {dict(words)}"


CHECKS = (
    Check("no end sees a clean end too early, other bytes, or nothing for ever", _no_end_saw_what_must_never_be),
    Check("an end before the first bytes is an error", _unnamed_ends_are_errors_or_empty),
    Check("what a program has whole arrived whole", _what_a_program_has_whole_the_service_had_whole),
    Check("every end has ended", _every_end_has_ended),
    Check("flows were carried", _flows_were_carried),
)
