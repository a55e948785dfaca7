"""Background tasks end with their owner and fail aloud; waits begin again later and later."""

from __future__ import annotations

import asyncio
import logging

import pytest

from klinket.domain.errors import ControllerUnreachable
from klinket.net.backoff import Backoff
from klinket.net.tasks import TaskSet, first_of


async def forever(ended: list[str], name: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(name)


async def test_closing_ends_all_and_waits_for_their_ends() -> None:
    tasks, ended = TaskSet("owner"), []  # type: ignore[var-annotated]
    for name in ("one", "two"):
        tasks.start(forever(ended, name), name)
    await asyncio.sleep(0)
    assert len(tasks) == 2
    await tasks.aclose()
    assert sorted(ended) == ["one", "two"]
    assert len(tasks) == 0


async def test_nothing_begins_after_the_end() -> None:
    tasks = TaskSet("owner")
    await tasks.aclose()
    late = tasks.start(asyncio.sleep(60), "late")
    await asyncio.wait([late], timeout=5)
    assert late.cancelled()


async def test_a_task_may_close_its_owner() -> None:
    tasks, ended = TaskSet("owner"), []  # type: ignore[var-annotated]
    tasks.start(forever(ended, "other"), "other")

    async def closes() -> str:
        await tasks.aclose()
        return "went on"

    closing = tasks.start(closes(), "closes")
    assert await asyncio.wait_for(closing, 5) == "went on"
    assert ended == ["other"]


@pytest.mark.parametrize(
    ("error", "level", "traceback"),
    [(RuntimeError("a defect"), logging.ERROR, True), (ControllerUnreachable("as expected"), logging.INFO, False)],
)
async def test_a_failure_is_logged_by_name(
    error: Exception, level: int, traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> None:
        raise error

    with caplog.at_level(logging.INFO):
        tasks = TaskSet("owner")
        await asyncio.wait([tasks.start(fails(), "work")], timeout=5)
        await asyncio.sleep(0)
    (record,) = [one for one in caplog.records if "owner: work" in one.getMessage()]
    assert record.levelno == level
    assert bool(record.exc_info) == traceback


async def test_first_of_returns_with_the_first_event_and_leaves_no_task() -> None:
    one, two = asyncio.Event(), asyncio.Event()
    before = asyncio.all_tasks()
    waiting = asyncio.ensure_future(first_of(one, two))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    two.set()
    await asyncio.wait_for(waiting, 5)
    await first_of(one, timeout=0.01)  # the time is over: the events tell that it was neither
    assert not one.is_set()
    giving_up = asyncio.ensure_future(first_of(one))
    await asyncio.sleep(0)
    giving_up.cancel()
    await asyncio.gather(giving_up, return_exceptions=True)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def test_waits_double_up_to_the_cap_and_differ_from_peer_to_peer() -> None:
    backoff = Backoff(first=0.25, cap=4.0)
    for step in (0.25, 0.5, 1.0, 2.0, 4.0, 4.0):
        assert step / 2 <= backoff.next() <= step
    backoff.reset()
    assert backoff.next() <= 0.25
    assert len({Backoff(first=1.0).next() for _ in range(20)}) > 1
