"""Looking through a long table from a place on, and searching in names: the same on both databases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from klinket.controller.app.ports import Transaction
from klinket.controller.database import PostgresAddress
from klinket.controller.store.engine import SqlStore, open_store


@pytest.fixture
def store(database: Path | PostgresAddress) -> Iterator[SqlStore]:
    store = open_store(database, time.time)
    yield store
    store.close()


def add_events(tx: Transaction, count: int, **more: Any) -> None:
    """Add events of which three have each time; every tenth is a refusal."""
    tx.flow_events.add_all(
        [
            {
                "connector_id": 1, "batch": 1, "number": number, "time_ms": number // 3, "flow": f"f{number}",
                "kind": "denied" if number % 10 == 0 else "closed", "service_account_id": number % 2, "service_key_id": None,
                "resource_id": None, "remote_network_id": None, "failure": None, "event": {"name": f"Zoë {number}"}, **more,
            }
            for number in range(count)
        ]
    )  # fmt: skip


def numbers(found: list[Any]) -> list[int]:
    return [row.number for row in found]


async def test_pages_follow_each_other_without_gap_or_repetition_also_among_equal_times(store: SqlStore) -> None:
    await store.write(lambda tx: add_events(tx, 30))
    seen: list[int] = []
    before = None
    for _ in range(8):
        found, before = await store.read(lambda tx: tx.flow_events.look_through("time_ms", 4, at_most=100, before=before))  # noqa: B023
        seen += numbers(found)
        if before is None:
            break
    assert seen == list(range(29, -1, -1))


async def test_going_back_up_gives_the_rows_just_above_the_lowest_first(store: SqlStore) -> None:
    await store.write(lambda tx: add_events(tx, 30))
    place = (await store.read(lambda tx: tx.flow_events.look_through("time_ms", 10, at_most=100)))[0][9]
    above = (place.time_ms, place.id)
    found, _ = await store.read(lambda tx: tx.flow_events.look_through("time_ms", 3, at_most=100, after=above))
    assert numbers(found) == [21, 22, 23]


async def test_no_more_rows_are_looked_at_than_asked_and_the_place_to_go_on_is_told(store: SqlStore) -> None:
    await store.write(lambda tx: add_events(tx, 1000))
    look = {"at_most": 400, "kind": "denied", "narrowed": {"service_account_id": 0}}
    found, end = await store.read(lambda tx: tx.flow_events.look_through("time_ms", 500, **look))  # type: ignore[arg-type]
    assert numbers(found) == list(range(990, 190, -10))  # 400 of the account's 500
    assert end is not None
    found, end = await store.read(lambda tx: tx.flow_events.look_through("time_ms", 500, before=end, **look))  # type: ignore[arg-type]
    assert (numbers(found), end) == (list(range(190, -1, -10)), None)


async def test_bounds_and_texts_in_json_choose_rows(store: SqlStore) -> None:
    await store.write(lambda tx: add_events(tx, 60))
    found, _ = await store.read(
        lambda tx: tx.flow_events.look_through(
            "time_ms", 9, at_most=100, least={"time_ms": 2}, below={"time_ms": 5}, containing={"event": ["zo", "1"]}
        )
    )
    assert numbers(found) == [14, 13, 12, 11, 10]
    found, _ = await store.read(lambda tx: tx.flow_events.look_through("time_ms", 9, at_most=100, containing={"event": ["%"]}))
    assert found == []


async def test_a_search_finds_text_in_any_case_and_what_begins_with_it_first(store: SqlStore) -> None:
    def add(tx: Transaction) -> None:
        for name in ("staging cache", "CACHE", "disk", "50% cache", "cache_2"):
            tx.remote_networks.add(name=name, location="OTHER", network_type="REGULAR", is_active=True)

    await store.write(add)

    async def names(text: str, limit: int = 10) -> list[str]:
        return [row.name for row in await store.read(lambda tx: tx.remote_networks.search(("name", "location"), text, limit))]

    assert await names("cache") == ["CACHE", "cache_2", "staging cache", "50% cache"]
    assert await names("cache", 1) == ["CACHE"]
    assert await names("0% c") == ["50% cache"]
    assert await names("_2") == ["cache_2"]
