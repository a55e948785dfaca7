"""Room for frames: what is called below it maps no memory, at whatever depth."""

from __future__ import annotations

import resource

import pytest

from klinket.controller.graphql.frames import with_room

CALLS = 400


def leaf() -> None:
    return None


leaf.__code__ = leaf.__code__.replace(co_stacksize=100)  # some depth below leaves no room for it in a chunk, wherever one ends


def faults_at(depth: int) -> int:
    """Return the page faults of a loop of calls that stands so many frames deeper."""
    if depth:
        return faults_at(depth - 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        leaf()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def worst() -> int:
    return max(faults_at(depth) for depth in range(250))


def test_no_loop_below_it_maps_memory_for_each_call() -> None:
    if worst() < CALLS:
        pytest.skip("this Python keeps its frames otherwise")
    assert with_room(worst) < CALLS / 4


def test_what_is_returned_and_raised_passes() -> None:
    assert with_room(lambda: "value") == "value"
    with pytest.raises(ZeroDivisionError):
        with_room(lambda: 1 // 0)
