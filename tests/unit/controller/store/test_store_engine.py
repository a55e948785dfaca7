"""The store on both databases: what was acknowledged is durable, what failed leaves nothing, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from klinket.controller.app.ports import Committed, Transaction
from klinket.controller.app.rows import RemoteNetworkRow
from klinket.controller.app.store_errors import StoreClosed, StoreOverloaded
from klinket.controller.database import PostgresAddress
from klinket.controller.store import engine
from klinket.controller.store.engine import SqlStore, open_store
from klinket.domain.errors import Conflict


@pytest.fixture
def store(database: Path | PostgresAddress) -> Iterator[SqlStore]:
    store = open_store(database, time.time)
    yield store
    store.close()


def add(tx: Transaction, name: str) -> RemoteNetworkRow:
    row = tx.remote_networks.add(name=name, location="OTHER", network_type="REGULAR", is_active=True)
    tx.bump()
    return row


def names(tx: Transaction) -> list[str]:
    return [row.name for row in tx.remote_networks.find()]


async def test_a_reader_sees_what_was_acknowledged(store: SqlStore) -> None:
    row = await store.write(lambda tx: add(tx, "office"))
    assert await store.read(lambda tx: tx.remote_networks.get(row.id)) == row


async def test_changes_of_one_commit_do_not_undo_each_other(store: SqlStore) -> None:
    def fails_late(tx: Transaction) -> None:
        add(tx, "half-made")
        raise ZeroDivisionError

    answers = await asyncio.gather(
        store.write(lambda tx: add(tx, "one")),
        store.write(fails_late),
        store.write(lambda tx: add(tx, "one")),
        store.write(lambda tx: add(tx, "two")),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [RemoteNetworkRow, ZeroDivisionError, Conflict, RemoteNetworkRow]
    assert await store.read(names) == ["one", "two"]


async def test_a_savepoint_undoes_only_what_is_inside_it(store: SqlStore) -> None:
    def change(tx: Transaction) -> None:
        add(tx, "kept")
        with pytest.raises(ZeroDivisionError), tx.savepoint():
            add(tx, "undone")
            raise ZeroDivisionError
        add(tx, "kept too")

    await store.write(change)
    assert await store.read(names) == ["kept", "kept too"]


async def test_concurrent_writers_lose_no_update(store: SqlStore) -> None:
    async def writer(number: int) -> None:
        for turn in range(20):
            await store.write(lambda tx, turn=turn: add(tx, f"{number}-{turn}"))

    before = await store.read(lambda tx: tx.head())
    await asyncio.gather(*(writer(number) for number in range(20)))
    assert len(await store.read(names)) == 400
    assert await store.read(lambda tx: tx.head()) == (before[0], before[1] + 400)


async def test_a_read_keeps_its_snapshot_while_others_write(store: SqlStore) -> None:
    await store.write(lambda tx: add(tx, "before"))
    loop = asyncio.get_running_loop()

    def look_twice(tx: Transaction) -> tuple[list[str], list[str]]:
        first = names(tx)
        asyncio.run_coroutine_threadsafe(store.write(lambda tx: add(tx, "meanwhile")), loop).result(10)
        return first, names(tx)

    assert await store.read(look_twice) == (["before"], ["before"])
    assert await store.read(names) == ["before", "meanwhile"]


async def test_a_reader_cannot_write(store: SqlStore) -> None:
    with pytest.raises(Exception, match=r"read-?only"):
        await store.read(lambda tx: add(tx, "from a reader"))
    assert await store.read(names) == []


async def test_listeners_hear_of_commits_that_bumped_before_the_writer_goes_on(store: SqlStore) -> None:
    heard: list[Committed] = []
    store.on_commit(heard.append)
    await store.write(lambda tx: add(tx, "office"))
    stamp = await store.read(lambda tx: tx.head())
    assert [committed.stamp for committed in heard] == [stamp]
    await store.write(lambda tx: tx.used_assertions.add(kid="k", jti="j", expires_at_ms=1))
    with pytest.raises(Conflict):
        await store.write(lambda tx: add(tx, "office"))
    assert [committed.stamp for committed in heard] == [stamp]


async def test_a_caller_that_gives_up_does_not_harm_the_writer(store: SqlStore) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        begun.set()
        go_on.wait(60)
        add(tx, "slow")

    running = asyncio.create_task(store.write(slow))
    await asyncio.to_thread(begun.wait, 60)
    waiting = asyncio.create_task(store.write(lambda tx: add(tx, "never wanted")))
    await asyncio.sleep(0)
    running.cancel()
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    go_on.set()
    await asyncio.wait_for(store.write(lambda tx: add(tx, "after")), 10)
    assert await store.read(names) == ["slow", "after"]


async def test_logs_and_errors_hold_no_values(store: SqlStore, caplog: pytest.LogCaptureFixture) -> None:
    def wrong_type(tx: Transaction) -> None:
        tx.relays.add(name="relay", token_hash="0123secret-hash", address=object())

    def nothing_where_something_must_be(tx: Transaction) -> None:
        tx.relays.add(name=None, token_hash="0123secret-hash")

    def twice(tx: Transaction) -> None:
        tx.relays.add(name="one", token_hash="0123secret-hash")
        tx.relays.add(name="two", token_hash="0123secret-hash")

    for wrong in (wrong_type, nothing_where_something_must_be, twice):
        with pytest.raises(Exception) as raised:
            await store.write(wrong)
        assert not isinstance(raised.value, AssertionError)
        causes = [raised.value, raised.value.__cause__, getattr(raised.value.__cause__, "orig", None)]
        assert "secret-hash" not in f"{causes} {[str(cause) for cause in causes]} {caplog.text}"


async def test_too_many_waiting_changes_are_refused(store: SqlStore) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def held(tx: Transaction) -> None:
        begun.set()
        go_on.wait(60)

    running = asyncio.create_task(store.write(held))
    await asyncio.to_thread(begun.wait, 60)
    waiting = [asyncio.create_task(store.write(names)) for _ in range(engine.MAX_WAITING + 1)]
    await asyncio.sleep(0)  # each has queued its change, or was refused
    go_on.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    await running
    assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [StoreOverloaded]


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest(database: Path | PostgresAddress) -> None:
    store = open_store(database, time.time)
    accepted = [asyncio.create_task(store.write(lambda tx, number=number: add(tx, str(number)))) for number in range(20)]
    await asyncio.sleep(0)
    await asyncio.to_thread(store.close)
    await asyncio.gather(*accepted)
    store.close()
    with pytest.raises(StoreClosed):
        await asyncio.wait_for(store.write(names), 10)
    again = open_store(database, time.time)
    assert len(await again.read(names)) == 20
    again.close()


async def test_an_id_is_never_given_twice(store: SqlStore) -> None:
    first = await store.write(lambda tx: add(tx, "first"))
    await store.write(lambda tx: tx.remote_networks.remove(id=first.id))
    second = await store.write(lambda tx: add(tx, "second"))
    assert second.id > first.id


async def test_a_reopened_database_keeps_its_head(database: Path | PostgresAddress) -> None:
    store = open_store(database, time.time)
    await store.write(lambda tx: add(tx, "office"))
    head = await store.read(lambda tx: tx.head())
    store.close()
    again = open_store(database, time.time)
    assert await again.read(lambda tx: tx.head()) == head
    assert await again.read(names) == ["office"]
    again.close()


async def test_each_database_has_a_life_of_its_own(store: SqlStore, tmp_path: Path) -> None:
    other = open_store(tmp_path / "other.db", time.time)
    assert (await other.read(lambda tx: tx.head()))[0] != (await store.read(lambda tx: tx.head()))[0]
    other.close()
