"""What lists and charts ask the store, on both databases: search, counts, the highest of a group, sums along time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from klinket.controller.app.ports import Transaction
from klinket.controller.database import PostgresAddress
from klinket.controller.store.engine import SqlStore, open_store

HOUR = 3_600_000


@pytest.fixture
def store(database: Path | PostgresAddress) -> Iterator[SqlStore]:
    store = open_store(database, time.time)
    yield store
    store.close()


def add_accounts(tx: Transaction) -> None:
    for number, name in enumerate(("deploy", "Backup", "ci_runner", "ci-runner", "100% load", "Übung")):
        tx.service_accounts.add(name=name, uuid=f"{number:08d}-0000-4000-8000-000000000000")


def add_keys(tx: Transaction) -> None:
    add_accounts(tx)
    for number, (account, expires, revoked, used) in enumerate(
        ((1, 500, None, 70), (1, None, None, 90), (1, 900, 300, None), (2, 100, None, None))
    ):
        tx.service_keys.add(
            name=f"key {number}", service_account_id=account, kid=f"key-{number}", public_key="PEM", expires_at_ms=expires,
            revoked_at_ms=revoked, expiry_cut=False, origin="controller", created_by={}, last_used_ms=used,
        )  # fmt: skip


def add_totals(tx: Transaction) -> None:
    for account, hour, flows in ((1, 0, 1), (1, 1, 2), (1, 6, 4), (2, 7, 8)):
        for kind in ("established", "closed"):
            tx.flow_totals.add(
                hour_ms=hour * HOUR, service_account_id=account, resource_id=1, kind=kind, failure="", flows=flows,
                bytes_from_client=0, bytes_to_client=0,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["100% load", "Backup", "ci-runner", "ci_runner", "deploy", "Übung"]),
        ("RUN", ["ci-runner", "ci_runner"]),
        ("_", ["ci_runner"]),  # what patterns are made of is text
        ("%", ["100% load"]),
        ("\\", []),
        ("Übung", ["Übung"]),
        ("nobody", []),
    ],
)
async def test_a_search_finds_what_holds_the_text(store: SqlStore, text: str, found: list[str]) -> None:
    await store.write(add_accounts)
    rows = await store.read(lambda tx: list(tx.service_accounts.matching(text, ["name"], order="name")))
    assert sorted(row.name for row in rows) == sorted(found)


async def test_a_search_looks_into_every_column_and_reads_the_part_that_is_asked_for(store: SqlStore) -> None:
    await store.write(add_accounts)

    def parts(tx: Transaction) -> tuple[int, list[str], list[str]]:
        rows = tx.service_accounts.matching("000", ["name", "uuid"], order="id", descending=True)
        return len(rows), [row.name for row in rows[1:3]], [row.name for row in tx.service_accounts.matching("b", ["name"])]

    assert await store.read(parts) == (6, ["100% load", "ci-runner"], ["Backup", "Übung"])


async def test_names_are_ordered_whatever_their_case(store: SqlStore) -> None:
    await store.write(add_accounts)
    rows = await store.read(lambda tx: tx.service_accounts.matching("", ["name"], order="name")[:])
    assert [row.name for row in rows if row.name.isalpha()][:2] == ["Backup", "deploy"]


async def test_bounds_of_a_search_and_what_has_no_value_is_beyond_all_of_them(store: SqlStore) -> None:
    await store.write(add_keys)

    def ids(tx: Transaction, **bounds: dict[str, int]) -> list[int]:
        found = tx.service_keys.matching("", ["name"], order="expires_at_ms", revoked_at_ms=None, **bounds)  # type: ignore[arg-type]
        return [row.id for row in found]

    assert await store.read(lambda tx: ids(tx)) == [4, 1, 2]
    assert await store.read(lambda tx: ids(tx, beyond={"expires_at_ms": 499})) == [1, 2]
    assert await store.read(lambda tx: ids(tx, beyond={"expires_at_ms": 500})) == [2]
    assert await store.read(lambda tx: ids(tx, least={"expires_at_ms": 100}, below={"expires_at_ms": 500})) == [4]


async def test_rows_are_counted_by_what_they_belong_to(store: SqlStore) -> None:
    await store.write(add_keys)
    assert await store.read(lambda tx: tx.service_keys.counts("service_account_id")) == {1: 3, 2: 1}
    assert await store.read(lambda tx: tx.service_keys.counts("service_account_id", revoked_at_ms=None)) == {1: 2, 2: 1}
    below = {"expires_at_ms": 500}
    assert await store.read(lambda tx: tx.service_keys.counts("service_account_id", below=below)) == {2: 1}
    assert await store.read(lambda tx: tx.service_keys.counts("service_account_id", service_account_id=[2, 7])) == {2: 1}


async def test_the_highest_of_each_group_leaves_out_groups_without_a_value(store: SqlStore) -> None:
    await store.write(add_keys)
    assert await store.read(lambda tx: tx.service_keys.highest("last_used_ms", "service_account_id")) == {1: 90}


async def test_sums_along_time_fall_into_steps(store: SqlStore) -> None:
    await store.write(add_totals)
    sums = await store.read(
        lambda tx: tx.flow_totals.sums("flows", "service_account_id", "hour_ms", 6 * HOUR, kind="established")
    )
    assert sums == {(1, 0): 3, (1, 1): 4, (2, 1): 8}
    later = await store.read(
        lambda tx: tx.flow_totals.sums("flows", "kind", "hour_ms", 24 * HOUR, least={"hour_ms": 2 * HOUR}, service_account_id=1)
    )
    assert later == {("established", 0): 4, ("closed", 0): 4}
