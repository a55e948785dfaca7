"""The SQLite store: one writer thread with group commit, a few reader threads (dependencies.md 2.3)."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from klinket.controller.app.ports import AnnouncedCut, Committed, StoreClosed, StoreOverloaded, Transaction
from klinket.controller.store.migrate import upgrade
from klinket.controller.store.transaction import CutSigner, SqlTransaction
from klinket.wire.grant_token import DEFAULT_LIFETIME_SECONDS

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Changes that share one commit at the most.
MAX_GROUP = 256
#: Changes that wait for the writer; one more is refused.
MAX_WAITING = 4_096
READERS = 4
#: Milliseconds a connection waits for a lock.
BUSY_MS = 5_000


class _Job:
    __slots__ = ("change", "future")

    def __init__(self, change: Callable[[Transaction], Any]) -> None:
        self.change = change
        self.future: Future[Any] = Future()


class SqliteStore:
    """Implements controller.app.ports.Store over one database file."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """Open (and make, or migrate) the database. `clock`: seconds since the epoch."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Before SQLite opens it: the -wal and -shm files beside it take over its mode.
        path.touch(mode=0o600)
        path.chmod(0o600)
        self._clock = clock
        self._writer = _engine(path, "BEGIN IMMEDIATE", 1)
        with self._writer.connect() as connection:
            upgrade(connection)
        self._reader = _engine(path, "BEGIN", READERS, read_only=True)
        self._listeners: list[tuple[asyncio.AbstractEventLoop, Callable[[Committed], None]]] = []
        self._sign_cut: CutSigner = _no_signer
        self._grant_seconds = DEFAULT_LIFETIME_SECONDS
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self._closing = threading.Lock()
        self._closed = False
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    def use_cut_signer(self, sign: CutSigner, grant_seconds: int = DEFAULT_LIFETIME_SECONDS) -> None:
        """Give transactions their way to sign cuts (the keys come from the store itself), and how long grants live."""
        self._grant_seconds = grant_seconds
        self._sign_cut = sign

    async def write(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` and return its result when it is durable; raises what it raises, and then nothing of it stays."""
        job = _Job(change)
        with self._closing:  # nothing may be queued behind the end mark: nobody would ever answer it
            if self._closed:
                raise StoreClosed("the store is closed")
            try:
                self._jobs.put_nowait(job)
            except queue.Full:
                raise StoreOverloaded(f"{MAX_WAITING} changes are waiting") from None
        return await asyncio.wrap_future(job.future)

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """Run `query` on a snapshot."""
        try:
            running = asyncio.get_running_loop().run_in_executor(self._readers, self._read, query)
        except RuntimeError as error:  # the readers take no more
            raise StoreClosed("the store is closed") from error
        return await running

    def _read(self, query: Callable[[Transaction], T]) -> T:
        with self._reader.connect() as connection:
            return query(self._transaction(connection))

    def on_commit(self, listener: Callable[[Committed], None]) -> None:
        """Call `listener` on the current event loop after each commit that bumped the revision."""
        self._listeners.append((asyncio.get_running_loop(), listener))

    def close(self) -> None:
        """Finish what was accepted, then close."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._readers.shutdown()
        self._writer.dispose()
        self._reader.dispose()

    # ---- the writer thread

    def _transaction(self, connection: Connection) -> SqlTransaction:
        return SqlTransaction(connection, int(self._clock() * 1000), self._sign_cut, self._grant_seconds)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            group = [job]
            over = False
            while len(group) < MAX_GROUP:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    over = True
                    break
                group.append(more)
            self._commit(group)
            if over:
                return

    def _commit(self, group: list[_Job]) -> None:
        """Run each change in a savepoint of its own, commit once, then tell everybody."""
        # From here on a caller that gives up no longer cancels its job: the answer of a running change must have a place to go.
        group = [job for job in group if job.future.set_running_or_notify_cancel()]
        if not group:
            return
        results: dict[_Job, Any] = {}
        errors: dict[_Job, BaseException] = {}
        cuts: list[AnnouncedCut] = []
        bumped = False
        stamp = (0, 0)
        try:
            with self._writer.connect() as connection, connection.begin():
                for job in group:
                    tx = self._transaction(connection)
                    try:
                        with tx.savepoint():
                            result = job.change(tx)
                    except BaseException as error:
                        if not _in_transaction(connection):
                            raise  # the database gave the whole transaction up (disk full): nobody's change was made
                        errors[job] = error
                        continue
                    results[job] = result
                    cuts.extend(tx.announced)
                    if tx.bumped:
                        bumped, stamp = True, tx.head()
        except BaseException as error:
            logger.exception("a commit failed; none of its %d changes was made", len(group))
            for job in group:
                job.future.set_exception(errors.get(job, error))
            return
        if bumped:
            committed = Committed(stamp, tuple(cuts))
            for loop, listener in self._listeners:
                try:
                    loop.call_soon_threadsafe(listener, committed)
                except RuntimeError:
                    pass  # that loop has ended: a restart reads everything anew
        for job in group:
            if job in errors:
                job.future.set_exception(errors[job])
            else:
                job.future.set_result(results[job])


def _in_transaction(connection: Connection) -> bool:
    raw = connection.connection.dbapi_connection
    return isinstance(raw, sqlite3.Connection) and raw.in_transaction


def _engine(path: Path, begin: str, size: int, *, read_only: bool = False) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,  # hashes and sealed keys have no place in logs
        connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy says BEGIN itself, below
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # a lost commit would be an undone revocation
            "foreign_keys=ON",
            f"busy_timeout={BUSY_MS}",
            "cache_size=-20000",
            f"query_only={'ON' if read_only else 'OFF'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _no_signer(_: Any) -> str:
    raise RuntimeError("the store has no cut signer yet")
