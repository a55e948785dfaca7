"""Looking for rows, and counting them, in the database rather than in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from klinket.controller.app import remote_networks, resources
from klinket.controller.app.ports import Transaction
from klinket.controller.database import PostgresAddress
from klinket.controller.store.engine import SqlStore, open_store
from klinket.domain.audit import SYSTEM

NAMES = ("beta", "Alpha", "100% _sure_", "gamma")


@pytest.fixture
def store(database: Path | PostgresAddress) -> Iterator[SqlStore]:
    store = open_store(database, time.time)
    yield store
    store.close()


def fill(tx: Transaction) -> None:
    for network in ("one", "two"):
        remote_networks.create(tx, SYSTEM, name=network, location="AWS", network_type="REGULAR", is_active=True)
    for number, name in enumerate(NAMES):
        resources.create(
            tx,
            SYSTEM,
            name=name,
            address=f"host-{number}.example",
            remote_network_id=1 if number else 2,
            tags=[{"key": "env", "value": "prod"}] if number % 2 else [{"key": "env", "value": 'a "prod"}'}],
        )


async def found(store: SqlStore, text: str, **more: object) -> list[str]:
    return await store.read(
        lambda tx: [row.name for row in tx.resources.matching(text, ("name", "address"), order="name", **more)]  # type: ignore[arg-type]
    )


async def test_text_is_found_in_any_case_and_in_any_of_the_columns(store: SqlStore) -> None:
    await store.write(fill)
    assert await found(store, "ALPHA") == ["Alpha"]
    assert await found(store, "host-3") == ["gamma"]
    assert await found(store, "") == ["100% _sure_", "Alpha", "beta", "gamma"]
    assert await found(store, "a", remote_network_id=1) == ["100% _sure_", "Alpha", "gamma"]


async def test_signs_of_patterns_stand_for_themselves(store: SqlStore) -> None:
    await store.write(fill)
    assert await found(store, "%") == await found(store, "_s") == ["100% _sure_"]


async def test_the_text_of_a_column_of_json_is_looked_at_exactly(store: SqlStore) -> None:
    await store.write(fill)
    assert await found(store, "", holding={"tags": '{"key": "env", "value": "prod"}'}) == ["Alpha", "gamma"]
    assert await found(store, "", holding={"tags": '{"key": "ENV", "value": "prod"}'}) == []


async def test_rows_are_counted_and_read_in_parts(store: SqlStore) -> None:
    await store.write(fill)

    def look(tx: Transaction) -> tuple[int, list[str], str]:
        rows = tx.resources.matching("a", ("name",), order="name")
        return len(rows), [row.name for row in rows[1:3]], rows[0].name

    assert await store.read(look) == (3, ["beta", "gamma"], "Alpha")


async def test_columns_are_picked_in_the_order_of_the_keys(store: SqlStore) -> None:
    await store.write(fill)
    assert await store.read(lambda tx: tx.resources.pick(("id", "name"), remote_network_id=1)) == [
        (2, "Alpha"), (3, "100% _sure_"), (4, "gamma"),
    ]  # fmt: skip


async def test_totals_come_with_the_highest_first(store: SqlStore) -> None:
    def fill_totals(tx: Transaction) -> None:
        for hour, resource, flows in ((1, 5, 2), (1, 6, 9), (2, 5, 3), (3, 5, 100)):
            tx.flow_totals.add(
                hour_ms=hour, service_account_id=1, resource_id=resource, kind="established", failure="",
                flows=flows, bytes_from_client=0, bytes_to_client=1 << 60,
            )  # fmt: skip

    await store.write(fill_totals)
    below = {"hour_ms": 3}
    totals = await store.read(lambda tx: tx.flow_totals.totals(("resource_id",), "flows", below=below, kind="established"))
    assert totals == [(6, 9), (5, 5)]
    assert await store.read(lambda tx: tx.flow_totals.totals(("resource_id",), limit=1)) == [(5, 3)]
    assert await store.read(lambda tx: tx.flow_totals.totals((), "bytes_to_client", least={"hour_ms": 2})) == [(2 << 60,)]
    assert await store.read(lambda tx: tx.flow_totals.totals(("kind",), "flows", kind="denied")) == []
