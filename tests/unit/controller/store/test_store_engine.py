"""The SQLite store: what was acknowledged is durable, what failed leaves nothing, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import logging
import resource
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from klinket.controller.app.ports import Committed, StoreClosed, StoreOverloaded, Transaction
from klinket.controller.app.rows import RemoteNetworkRow
from klinket.controller.store import engine
from klinket.controller.store.engine import SqliteStore
from klinket.domain.errors import Conflict


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "controller.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, time.time)
    yield store
    store.close()


def add(tx: Transaction, name: str) -> RemoteNetworkRow:
    row = tx.remote_networks.add(name=name, location="OTHER", network_type="REGULAR", is_active=True)
    tx.bump()
    return row


def names(tx: Transaction) -> list[str]:
    return [row.name for row in tx.remote_networks.find()]


async def test_a_reader_sees_what_was_acknowledged(store: SqliteStore) -> None:
    row = await store.write(lambda tx: add(tx, "office"))
    assert await store.read(lambda tx: tx.remote_networks.get(row.id)) == row


async def test_the_settings_that_durability_rests_on_are_in_force(store: SqliteStore, path: Path) -> None:
    def pragmas(tx: Transaction) -> dict[str, object]:
        connection = tx._connection  # type: ignore[attr-defined]
        wanted = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "query_only")
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in wanted}

    common = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": engine.BUSY_MS}
    assert await store.write(pragmas) == {**common, "query_only": 0}
    assert await store.read(pragmas) == {**common, "query_only": 1}


async def test_no_other_user_can_read_the_database_files(store: SqliteStore, path: Path) -> None:
    await store.write(lambda tx: add(tx, "office"))
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["controller.db", "controller.db-shm", "controller.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_changes_of_one_commit_do_not_undo_each_other(store: SqliteStore) -> None:
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


async def test_a_savepoint_undoes_only_what_is_inside_it(store: SqliteStore) -> None:
    def change(tx: Transaction) -> None:
        add(tx, "kept")
        with pytest.raises(ZeroDivisionError), tx.savepoint():
            add(tx, "undone")
            raise ZeroDivisionError
        add(tx, "kept too")

    await store.write(change)
    assert await store.read(names) == ["kept", "kept too"]


async def test_concurrent_writers_lose_no_update(store: SqliteStore) -> None:
    async def writer(number: int) -> None:
        for turn in range(20):
            await store.write(lambda tx, turn=turn: add(tx, f"{number}-{turn}"))

    before = await store.read(lambda tx: tx.head())
    await asyncio.gather(*(writer(number) for number in range(20)))
    assert len(await store.read(names)) == 400
    assert await store.read(lambda tx: tx.head()) == (before[0], before[1] + 400)


async def test_a_read_keeps_its_snapshot_while_others_write(store: SqliteStore) -> None:
    await store.write(lambda tx: add(tx, "before"))
    loop = asyncio.get_running_loop()

    def look_twice(tx: Transaction) -> tuple[list[str], list[str]]:
        first = names(tx)
        asyncio.run_coroutine_threadsafe(store.write(lambda tx: add(tx, "meanwhile")), loop).result(10)
        return first, names(tx)

    assert await store.read(look_twice) == (["before"], ["before"])
    assert await store.read(names) == ["before", "meanwhile"]


async def test_a_reader_cannot_write(store: SqliteStore) -> None:
    with pytest.raises(Exception, match="readonly"):
        await store.read(lambda tx: add(tx, "from a reader"))
    assert await store.read(names) == []


async def test_listeners_hear_of_commits_that_bumped_before_the_writer_goes_on(store: SqliteStore) -> None:
    heard: list[Committed] = []
    store.on_commit(heard.append)
    await store.write(lambda tx: add(tx, "office"))
    stamp = await store.read(lambda tx: tx.head())
    assert [committed.stamp for committed in heard] == [stamp]
    await store.write(lambda tx: tx.used_assertions.add(kid="k", jti="j", expires_at_ms=1))
    with pytest.raises(Conflict):
        await store.write(lambda tx: add(tx, "office"))
    assert [committed.stamp for committed in heard] == [stamp]


async def test_a_caller_that_gives_up_does_not_harm_the_writer(store: SqliteStore) -> None:
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


async def test_changes_that_cannot_begin_fail_instead_of_waiting_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "BUSY_MS", 50)
    store = SqliteStore(path, time.time)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Exception, match="database is locked"):
        await asyncio.wait_for(store.write(lambda tx: add(tx, "locked out")), 10)
    other.execute("ROLLBACK")
    other.close()
    await asyncio.wait_for(store.write(lambda tx: add(tx, "in again")), 10)
    assert await store.read(names) == ["in again"]
    store.close()


async def test_a_full_disk_fails_changes_aloud_and_the_store_recovers(store: SqliteStore, path: Path) -> None:
    """Past a file size limit the kernel refuses to write, as on a full disk; SQLite then gives the transaction up."""
    await store.write(lambda tx: add(tx, "before"))
    acknowledged: list[str] = ["before"]

    async def write(name: str) -> None:
        try:
            await store.write(lambda tx: (add(tx, name), tx.flow_events.add(
                connector_id=1, batch=len(acknowledged), number=int(name), time_ms=0, event={"text": "x" * 20_000},
            )))  # fmt: skip
        except Exception:
            return
        acknowledged.append(name)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name(path.name + "-wal").stat().st_size
    logging.getLogger("klinket.controller.store.engine").setLevel(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 200_000, hard))
    try:
        await asyncio.gather(*(write(str(number)) for number in range(100)))
        failed = 101 - len(acknowledged)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        logging.getLogger("klinket.controller.store.engine").setLevel(logging.NOTSET)
    assert failed > 0
    assert set(acknowledged) <= set(await store.read(names))
    await asyncio.wait_for(store.write(lambda tx: add(tx, "after")), 10)
    store.close()
    with sqlite3.connect(path) as again:
        assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kept = {name for (name,) in again.execute("SELECT name FROM remote_networks")}
    assert kept >= {*acknowledged, "after"}


async def test_logs_of_a_failed_commit_hold_no_values(
    store: SqliteStore, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(tx: Transaction) -> None:
        tx.relays.add(name="relay", token_hash="0123secret-hash", address=object())

    with pytest.raises(Exception, match="not supported") as raised:
        await store.write(wrong)
    assert "secret-hash" not in f"{raised.value} {raised.value.__cause__} {caplog.text}"


async def test_too_many_waiting_changes_are_refused(store: SqliteStore) -> None:
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


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest(path: Path) -> None:
    store = SqliteStore(path, time.time)
    accepted = [asyncio.create_task(store.write(lambda tx, number=number: add(tx, str(number)))) for number in range(20)]
    await asyncio.sleep(0)
    await asyncio.to_thread(store.close)
    await asyncio.gather(*accepted)
    store.close()
    with pytest.raises(StoreClosed):
        await asyncio.wait_for(store.write(names), 10)
    with sqlite3.connect(path) as again:
        assert again.execute("SELECT count(*) FROM remote_networks").fetchone() == (20,)


async def test_an_id_is_never_given_twice(store: SqliteStore) -> None:
    first = await store.write(lambda tx: add(tx, "first"))
    await store.write(lambda tx: tx.remote_networks.remove(id=first.id))
    second = await store.write(lambda tx: add(tx, "second"))
    assert second.id > first.id


async def test_a_reopened_database_keeps_its_head(path: Path) -> None:
    store = SqliteStore(path, time.time)
    await store.write(lambda tx: add(tx, "office"))
    head = await store.read(lambda tx: tx.head())
    store.close()
    again = SqliteStore(path, time.time)
    assert await again.read(lambda tx: tx.head()) == head
    assert await again.read(names) == ["office"]
    again.close()
    other = SqliteStore(path.with_name("other.db"), time.time)
    assert (await other.read(lambda tx: tx.head()))[0] != head[0]
    other.close()
