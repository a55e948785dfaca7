"""The store: one writer thread with group commit, a few reader threads (dependencies.md 2.3)."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from klinket.controller.app.ports import AnnouncedCut, Committed, Transaction
from klinket.controller.app.store_errors import (
    OutcomeUnknown,
    StoreClosed,
    StoreInUse,
    StoreNotWritable,
    StoreOverloaded,
    StoreUnavailable,
    StoreUnreachable,
)
from klinket.controller.database import PostgresAddress
from klinket.controller.store.backend import BUSY_MS, READERS, Backend
from klinket.controller.store.sqlite import SqliteBackend
from klinket.controller.store.transaction import CutSigner, SqlTransaction
from klinket.wire.grant_token import DEFAULT_LIFETIME_SECONDS

logger = logging.getLogger(__name__)
T = TypeVar("T")
E = TypeVar("E", bound=StoreUnavailable)

#: Changes that share one commit at the most.
MAX_GROUP = 256
#: Changes that wait for the writer; one more is refused.
MAX_WAITING = 4_096
#: Seconds between looks whether a commit was made that nobody answered.
SETTLE_SECONDS = 0.5


class _Job:
    __slots__ = ("change", "future")

    def __init__(self, change: Callable[[Transaction], Any]) -> None:
        self.change = change
        self.future: Future[Any] = Future()


class _Group:
    """Changes of one transaction, and what became of each."""

    def __init__(self, jobs: list[_Job]) -> None:
        self.jobs = jobs
        self.results: dict[_Job, Any] = {}
        self.errors: dict[_Job, BaseException] = {}
        self.cuts: list[AnnouncedCut] = []
        self.committed: Committed | None = None
        self.mark: Any = None
        self.is_committing = False

    def fail(self, error: BaseException) -> None:
        for job in self.jobs:
            job.future.set_exception(self.errors.get(job, error))

    def answer(self) -> None:
        for job in self.jobs:
            if job in self.errors:
                job.future.set_exception(self.errors[job])
            else:
                job.future.set_result(self.results[job])


class SqlStore:
    """Implements controller.app.ports.Store over one database."""

    def __init__(self, backend: Backend, clock: Callable[[], float]) -> None:
        """Take an open database over. `clock`: seconds since the epoch."""
        self._backend = backend
        self._clock = clock
        self._listeners: list[tuple[asyncio.AbstractEventLoop, Callable[[Committed], None]]] = []
        self._sign_cut: CutSigner = _no_signer
        self._grant_seconds = DEFAULT_LIFETIME_SECONDS
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        #: Commits that were never answered, to be announced if they turn out to have been made.
        self._doubts: list[tuple[Any, Committed]] = []
        self._is_away = False
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
        """Run `change` and return its result when it is durable; raises what it raises, and then nothing of it stays.

        Raises StoreUnavailable as well; of its kinds only OutcomeUnknown leaves open whether the change was made.
        """
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
        """Run `query` on a snapshot; raises StoreUnreachable or StoreClosed."""
        try:
            running = asyncio.get_running_loop().run_in_executor(self._readers, self._read, query)
        except RuntimeError as error:  # the readers take no more
            raise StoreClosed("the store is closed") from error
        return await running

    def _read(self, query: Callable[[Transaction], T]) -> T:
        try:
            with self._backend.reader.connect() as connection:
                try:
                    result = query(self._transaction(connection))
                except SQLAlchemyError as error:
                    raise (self._unreachable(error) if connection.invalidated else error) from error
                if connection.invalidated:  # the query may have taken the failure for one of a single field
                    raise self._unreachable(None)
                return result
        except SQLAlchemyError as error:
            raise self._named(error) from error

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
        self._backend.writer.dispose()
        self._backend.reader.dispose()

    # ---- the writer thread

    def _transaction(self, connection: Connection) -> SqlTransaction:
        return SqlTransaction(connection, int(self._clock() * 1000), self._sign_cut, self._grant_seconds)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=SETTLE_SECONDS if self._doubts else None)
            except queue.Empty:
                self._commit([])
                continue
            if job is None:
                return
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

    def _commit(self, jobs: list[_Job]) -> None:
        """Run each change in a savepoint of its own, commit once, then tell everybody."""
        # From here on a caller that gives up no longer cancels its job: the answer of a running change must have a place to go.
        group = _Group([job for job in jobs if job.future.set_running_or_notify_cancel()])
        if not group.jobs and not self._doubts:
            return
        try:
            with self._begin(group) as connection:
                self._settle(connection)
                for job in group.jobs:
                    self._run(group, job, connection)
                group.is_committing = True
                connection.commit()
        except BaseException as error:
            group.fail(self._what_failed(group, error))
            return
        self._is_back()
        if group.committed is not None:
            self._announce(group.committed)
        group.answer()

    def _begin(self, group: _Group) -> Connection:
        """Return a connection whose transaction has the lock; one that was lost meanwhile is replaced once."""
        is_new = False
        while True:
            connection = self._backend.writer.connect()
            try:
                group.mark = self._backend.lock(connection)
                return connection
            except BaseException as error:
                connection.close()
                if is_new or not self._backend.is_lost(error):
                    raise
                is_new = True

    def _run(self, group: _Group, job: _Job, connection: Connection) -> None:
        tx = self._transaction(connection)
        try:
            with tx.savepoint():
                result = job.change(tx)
        except BaseException as error:
            if connection.invalidated:
                raise self._unreachable(error) from error
            if not self._backend.is_alive(connection):
                raise  # the database gave the whole transaction up (disk full): nobody's change was made
            group.errors[job] = self._named(error)
            return
        group.results[job] = result
        group.cuts.extend(tx.announced)
        if tx.bumped:
            group.committed = Committed(tx.head(), ())
        if group.committed is not None:
            group.committed = Committed(group.committed.stamp, tuple(group.cuts))

    def _what_failed(self, group: _Group, error: BaseException) -> BaseException:
        if group.is_committing and self._backend.is_lost(error):
            if group.committed is not None:
                self._doubts.append((group.mark, group.committed))
            self._note_away(error)
            return _caused(OutcomeUnknown("the database was lost while it committed the change"), error)
        named = self._named(error)
        if isinstance(named, StoreInUse):  # another one took over while this one's connection was lost
            self._note_away(named)
        if not isinstance(named, StoreUnavailable):
            logger.error("a commit failed; none of its %d changes was made", len(group.jobs), exc_info=error)
        return named

    def _settle(self, connection: Connection) -> None:
        """Announce what was committed without an answer: connectors must hear of a cut that its caller gave up."""
        while self._doubts:
            mark, committed = self._doubts[0]
            if self._backend.was_committed(connection, mark):
                logger.warning("revision %d was committed although nobody could be told", committed.stamp[1])
                self._announce(committed)
            del self._doubts[0]

    def _announce(self, committed: Committed) -> None:
        for loop, listener in self._listeners:
            try:
                loop.call_soon_threadsafe(listener, committed)
            except RuntimeError:
                pass  # that loop has ended: a restart reads everything anew

    # ---- a database that is away

    def _named(self, error: BaseException) -> BaseException:
        """Return what callers are told of an error of the database: nothing was changed."""
        if self._backend.is_locked(error):
            told = f"the database is locked: another process has kept it for {BUSY_MS / 1000:.0f} s"
            return _caused(StoreUnreachable(told), error)
        if self._backend.is_not_writable(error):
            not_writable = StoreNotWritable("the controller's database takes no changes: its disk is full or not writable")
            self._note_away(not_writable)
            return _caused(not_writable, error)
        if self._backend.is_lost(error):
            return self._unreachable(error)
        return error

    def _unreachable(self, error: BaseException | None) -> StoreUnreachable:
        self._note_away(error)
        unreachable = StoreUnreachable("the controller's database cannot be reached")
        return unreachable if error is None else _caused(unreachable, error)

    def _note_away(self, error: BaseException | None) -> None:
        if not self._is_away:
            self._is_away = True
            reason = error.orig if isinstance(error, DBAPIError) else error
            logger.error("the database is away: %s", str(reason or "connection lost").strip().splitlines()[0])

    def _is_back(self) -> None:
        if self._is_away:
            self._is_away = False
            logger.warning("the database is back")


def open_store(database: Path | PostgresAddress, clock: Callable[[], float], *, as_guest: bool = False) -> SqlStore:
    """Open (and make, or migrate) a controller's database. `as_guest`: beside a controller that may be running.

    Raises InvalidInput("database"), StoreInUse, StoreUnreachable.
    """
    if isinstance(database, Path):
        return SqlStore(SqliteBackend(database), clock)
    from klinket.controller.store.postgres import PostgresBackend  # its driver is an extra

    return SqlStore(PostgresBackend(database, exclusive=not as_guest), clock)


def _caused(error: E, cause: BaseException) -> E:
    error.__cause__ = cause
    return error


def _no_signer(_: Any) -> str:
    raise RuntimeError("the store has no cut signer yet")
