"""SQLite: one file, zero set-up (dependencies.md 2.3)."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from klinket.controller.app.store_errors import StoreNotWritable
from klinket.controller.store import backend
from klinket.controller.store.backend import READERS
from klinket.controller.store.migrate import upgrade

_NOT_WRITABLE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)

#: Errors that are looked through from one back to the first.
_MAX_CHAIN = 16


class SqliteBackend:
    """Implements Backend over one database file."""

    def __init__(self, path: Path) -> None:
        """Open (and make, or migrate) the database."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Before SQLite opens it: the -wal and -shm files beside it take over its mode.
        try:
            path.touch(mode=0o600)
            path.chmod(0o600)
        except OSError as error:
            hint = f"make {path.parent} writable for the user klinket runs as, and start the controller again"
            raise StoreNotWritable(f"{path} cannot be written: {error.strerror}", hint=hint) from error
        self.writer = _engine(path, "BEGIN IMMEDIATE", 1)
        with self.writer.connect() as connection:
            upgrade(connection)
        self.reader = _engine(path, "BEGIN", READERS, read_only=True)

    def lock(self, connection: Connection) -> None:
        """Begin; BEGIN IMMEDIATE keeps other writers out."""
        connection.begin()

    def is_alive(self, connection: Connection) -> bool:
        """Return whether the transaction goes on; after some errors (a full disk) SQLite has ended it."""
        raw = connection.connection.dbapi_connection
        return isinstance(raw, sqlite3.Connection) and raw.in_transaction

    def is_lost(self, _: BaseException) -> bool:
        """Return False: a file is not away."""
        return False

    def is_locked(self, error: BaseException) -> bool:
        """Return whether another process kept the file locked."""
        return isinstance(error, OperationalError) and getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY

    def is_not_writable(self, error: BaseException) -> bool:
        """Return whether the disk is full, read-only or broken.

        SQLite then ends the transaction by itself, so what comes up may be the savepoint that is gone, from that error on.
        """
        at: BaseException | None = error
        for _ in range(_MAX_CHAIN):
            if isinstance(at, sqlite3.OperationalError) and (getattr(at, "sqlite_errorcode", 0) & 0xFF) in _NOT_WRITABLE:
                return True
            at = None if at is None else at.__cause__ or at.__context__
        return False

    def was_committed(self, connection: Connection, mark: Any) -> bool:
        """Return False: a commit in the same process is always answered."""
        return False


def _engine(path: Path, begin: str, size: int, *, read_only: bool = False) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,  # hashes and sealed keys have no place in logs
        connect_args={"check_same_thread": False, "timeout": backend.BUSY_MS / 1000},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy says BEGIN itself, below
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # a lost commit would be an undone revocation
            "foreign_keys=ON",
            f"busy_timeout={backend.BUSY_MS}",
            "cache_size=-20000",
            f"query_only={'ON' if read_only else 'OFF'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
