"""What is SQLite's own: its settings, its files, its locks, and a full disk."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import RemoteNetworkRow
from klinket.controller.app.store_errors import StoreNotWritable, StoreUnreachable
from klinket.controller.store import backend
from klinket.controller.store.engine import SqlStore, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "controller.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    store = open_store(path, time.time)
    yield store
    store.close()


def add(tx: Transaction, name: str) -> RemoteNetworkRow:
    row = tx.remote_networks.add(name=name, location="OTHER", network_type="REGULAR", is_active=True)
    tx.bump()
    return row


def names(tx: Transaction) -> list[str]:
    return [row.name for row in tx.remote_networks.find()]


async def test_the_settings_that_durability_rests_on_are_in_force(store: SqlStore, path: Path) -> None:
    def pragmas(tx: Transaction) -> dict[str, object]:
        connection = tx._connection  # type: ignore[attr-defined]
        wanted = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "query_only")
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in wanted}

    common = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": backend.BUSY_MS}
    assert await store.write(pragmas) == {**common, "query_only": 0}
    assert await store.read(pragmas) == {**common, "query_only": 1}


async def test_no_other_user_can_read_the_database_files(store: SqlStore, path: Path) -> None:
    await store.write(lambda tx: add(tx, "office"))
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["controller.db", "controller.db-shm", "controller.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_store_on_a_disk_that_is_read_only_says_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(StoreNotWritable, match="Read-only file system") as raised:
        open_store(path, time.time)
    assert f"make {path.parent} writable" in (raised.value.hint or "")


async def test_changes_that_cannot_begin_fail_instead_of_waiting_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backend, "BUSY_MS", 50)
    store = open_store(path, time.time)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnreachable, match="database is locked"):
        await asyncio.wait_for(store.write(lambda tx: add(tx, "locked out")), 10)
    other.execute("ROLLBACK")
    other.close()
    await asyncio.wait_for(store.write(lambda tx: add(tx, "in again")), 10)
    assert await store.read(names) == ["in again"]
    store.close()


async def test_a_full_disk_fails_changes_aloud_and_the_store_recovers(
    store: SqlStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Past a file size limit the kernel refuses to write, as on a full disk; SQLite then gives the transaction up."""
    await store.write(lambda tx: add(tx, "before"))
    acknowledged: list[str] = ["before"]

    async def write(name: str) -> None:
        try:
            await store.write(lambda tx: (add(tx, name), tx.flow_events.add(
                connector_id=1, batch=len(acknowledged), number=int(name), time_ms=0, kind="open", flow="f",
                event={"text": "x" * 20_000},
            )))  # fmt: skip
        except StoreNotWritable:
            return
        acknowledged.append(name)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name(path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 200_000, hard))
    try:
        await asyncio.gather(*(write(str(number)) for number in range(100)))
        failed = 101 - len(acknowledged)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = [record for record in caplog.records if record.name == "klinket.controller.store.engine"]
    assert said[0].getMessage().startswith("the database is away: ")
    assert all(record.exc_info is None for record in said)
    assert failed > 0
    assert set(acknowledged) <= set(await store.read(names))
    await asyncio.wait_for(store.write(lambda tx: add(tx, "after")), 10)
    store.close()
    with sqlite3.connect(path) as again:
        assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kept = {name for (name,) in again.execute("SELECT name FROM remote_networks")}
    assert kept >= {*acknowledged, "after"}
