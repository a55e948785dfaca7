"""What the two databases do differently: how to begin, what a failure means, whether a lost commit was made."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import Connection, Engine

#: Connections that read at the same time.
READERS = 4
#: Milliseconds a transaction waits for a lock that another process holds.
BUSY_MS = 5_000


class Backend(Protocol):
    """A database that is open, with the newest schema."""

    writer: Engine
    reader: Engine

    def lock(self, connection: Connection) -> Any:
        """Begin a write transaction that no other one runs beside; return the mark by which `was_committed` knows it."""

    def is_alive(self, connection: Connection) -> bool:
        """Return whether the connection is in a transaction that can go on."""

    def is_lost(self, error: BaseException) -> bool:
        """Return whether an error means that the database is away, not that something was wrong with what it was asked."""

    def is_locked(self, error: BaseException) -> bool:
        """Return whether an error means that another process kept a lock for BUSY_MS."""

    def is_not_writable(self, error: BaseException) -> bool:
        """Return whether an error means that the database takes no change: its disk is full, read-only or broken."""

    def was_committed(self, connection: Connection, mark: Any) -> bool:
        """Return whether a transaction was committed whose commit was never answered; the connection holds the lock."""
