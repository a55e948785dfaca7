"""PostgreSQL: for those who outgrow one machine's file (decision record 0007)."""

from __future__ import annotations

import logging
import time
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DataError, DBAPIError

from klinket.controller.app.store_errors import StoreInUse, StoreUnreachable
from klinket.controller.database import KEEPALIVE, PostgresAddress
from klinket.controller.store import backend
from klinket.controller.store.backend import READERS
from klinket.controller.store.migrate import missing, upgrade
from klinket.domain.errors import InvalidInput

logger = logging.getLogger(__name__)

#: The oldest server that is served; the one that is tested.
MIN_VERSION = 150_000
#: Milliseconds a statement may take, and a transaction may stand still: a writer that hangs keeps all others out.
STATEMENT_MS = 60_000
IDLE_MS = 60_000
#: Seconds a start waits for the lock of a controller that is just ending.
PATIENCE_SECONDS = 5.0
#: Advisory locks are numbers in one space per database: the first of two, and what the second is made of.
_CONTROLLER_LOCK = 0x6B6C6B74
_MIGRATION_LOCK = 0x6B6C6B6D
#: SQLSTATE of what passes without anything being wrong with a statement: no connection, shutdown, crash, start-up, too many
#: connections, a session that was ended for standing still.
_AWAY = ("08", "57P01", "57P02", "57P03", "53300", "25P03")
#: disk_full, io_error. Not read_only_sql_transaction: that is what a reader that writes hears.
_NOT_WRITABLE = ("53100", "58030")


class PostgresBackend:
    """Implements Backend over a database of a PostgreSQL server."""

    def __init__(self, address: PostgresAddress, *, exclusive: bool) -> None:
        """Open the database. `exclusive`: as its controller (migrate, and keep others out), else as a guest beside one.

        Raises StoreInUse, StoreUnreachable, InvalidInput("database").
        """
        self._address = address
        self._exclusive = exclusive
        self.writer = self._engine(1)
        self.reader = self._engine(READERS, read_only=True)
        try:
            self._open()
        except BaseException:
            self.writer.dispose()
            self.reader.dispose()
            raise

    def _open(self) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with self.writer.connect() as connection:
                    self._prepare_schema(connection)
                return
            except StoreInUse:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            except DBAPIError as error:
                if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
                    raise InvalidInput("database", f"{self._address}: {_first_line(error)}") from None
                if not self.is_lost(error):
                    raise
                hint = "is the server up, and the URL right?"
                raise StoreUnreachable(f"{self._address}: {_first_line(error)}", hint=hint) from None

    def _prepare_schema(self, connection: Connection) -> None:
        if not self._exclusive:
            if missing(connection):
                hint = "start `klinket controller` of this version on it first"
                raise InvalidInput("database", f"{self._address} does not hold this version's tables", hint=hint)
            return
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key, hashtext(current_schema()))"), {"key": _MIGRATION_LOCK})
        upgrade(connection)

    # ---- transactions

    def lock(self, connection: Connection) -> str:
        """Begin and lock the head row: what BEGIN IMMEDIATE is to SQLite. Returns the transaction's id.

        READ COMMITTED: each later statement sees all that was committed before the lock was given.
        """
        connection.begin()
        return str(connection.exec_driver_sql("SELECT pg_current_xact_id()::text FROM head FOR UPDATE").scalar_one())

    def is_alive(self, connection: Connection) -> bool:
        """Return whether the connection stands and its transaction has not failed."""
        if connection.invalidated:
            return False
        raw = connection.connection.dbapi_connection
        return isinstance(raw, psycopg.Connection) and raw.info.transaction_status == TransactionStatus.INTRANS

    def is_lost(self, error: BaseException) -> bool:
        """Return whether the database is away."""
        if not isinstance(error, DBAPIError):
            return False
        state = getattr(error.orig, "sqlstate", None)
        if state is None:  # libpq itself could not connect, or the connection broke
            return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError)
        return error.connection_invalidated or state.startswith(_AWAY)

    def is_locked(self, error: BaseException) -> bool:
        """Return whether another session kept the head row."""
        return isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.errors.LockNotAvailable)

    def is_not_writable(self, error: BaseException) -> bool:
        """Return whether the server's disk is full or broken."""
        state = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
        return state in _NOT_WRITABLE

    def was_committed(self, connection: Connection, mark: Any) -> bool:
        """Return whether the transaction with this id was committed; it is over, for its lock was given to this one."""
        try:
            with connection.begin_nested():
                status = connection.execute(text("SELECT pg_xact_status(CAST(:id AS xid8))"), {"id": mark}).scalar()
        except DataError:
            return False  # another server has taken over and never heard of it
        return status != "aborted"

    # ---- connections

    def _engine(self, size: int, *, read_only: bool = False) -> Engine:
        engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: psycopg.connect(**dict(self._address.parameters), autocommit=True),  # type: ignore[arg-type]
            pool_size=size,
            max_overflow=0,
            # A reader that was lost is replaced before it is used; the writer finds out by its lock, without asking each time.
            pool_pre_ping=read_only,
            hide_parameters=True,
        )

        @event.listens_for(engine, "connect")
        def _prepare(connection: psycopg.Connection[Any], _: Any) -> None:
            try:
                self._settings(connection, read_only=read_only)
            except BaseException:
                connection.close()
                raise

        event.listen(engine, "handle_error", _without_values)
        return engine

    def _settings(self, connection: psycopg.Connection[Any], *, read_only: bool) -> None:
        if connection.info.server_version < MIN_VERSION:
            raise InvalidInput("database", f"PostgreSQL {MIN_VERSION // 10_000} is the oldest that is served")
        for name, wanted in (("server_encoding", "UTF8"), ("fsync", "on")):
            if connection.info.parameter_status(name) != wanted and _shown(connection, name) != wanted:
                raise InvalidInput("database", f"{self._address} has {name} {_shown(connection, name)}, it must be {wanted}")
        if _shown(connection, "synchronous_commit") not in ("on", "remote_apply"):
            connection.execute("SET synchronous_commit = on")  # a lost commit would be an undone revocation
        idle, between, count = KEEPALIVE
        for setting in (
            "client_encoding = 'UTF8'",
            f"lock_timeout = {backend.BUSY_MS}",
            f"statement_timeout = {STATEMENT_MS}",
            f"idle_in_transaction_session_timeout = {IDLE_MS}",
            # The server's side of a connection that broke silently gives its locks back.
            f"tcp_keepalives_idle = {idle}",
            f"tcp_keepalives_interval = {between}",
            f"tcp_keepalives_count = {count}",
            f"tcp_user_timeout = {(idle + between * count) * 1000}",
        ):
            connection.execute(f"SET {setting}".encode())
        if not read_only and connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
            raise StoreUnreachable(
                f"{self._address} is a standby, which takes no writes", hint="give the primary server's address"
            )
        if self._exclusive and not read_only:
            self._take_controller_lock(connection)
        connection.autocommit = False
        if read_only:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
        else:
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED

    def _take_controller_lock(self, connection: psycopg.Connection[Any]) -> None:
        # On the connection that writes: whoever loses it has to win the lock again before the next change.
        query = "SELECT pg_try_advisory_lock(%s, hashtext(current_schema()))"
        row = connection.execute(query, (_CONTROLLER_LOCK,)).fetchone()
        if row is None or not row[0]:
            raise StoreInUse(f"another controller runs on {self._address}")


def _shown(connection: psycopg.Connection[Any], name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    return str(row[0]) if row else ""


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0]


def _without_values(context: ExceptionContext) -> None:
    """Keep the server's DETAIL out of errors: it quotes rows, with hashes and sealed keys."""
    original = context.original_exception
    if not isinstance(original, psycopg.Error) or original.diag.message_primary is None:
        return
    original.args = (original.diag.message_primary,)
    if context.sqlalchemy_exception is not None:
        context.sqlalchemy_exception.args = (f"({type(original).__name__}) {original.diag.message_primary}",)
