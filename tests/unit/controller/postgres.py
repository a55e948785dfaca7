"""Debian's PostgreSQL as a server of the tests' own: made in a temporary folder, on a socket, as user postgres when root."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

from klinket.controller.database import PostgresAddress
from klinket.controller.store.postgres import PostgresBackend
from klinket.controller.store.schema import metadata
from klinket.domain import audit_chain

#: Seconds for the server to come up or go down.
PATIENCE = 30.0
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "autovacuum": "off",  # databases live for a test
    "checkpoint_timeout": "1h",
    "log_min_messages": "warning",
}


def binaries() -> Path | None:
    """Return the folder of the newest server's programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


_END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_EMPTY = ";".join(
    [
        "BEGIN",
        *(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)),
        f"INSERT INTO audit_head (id, number, digest) VALUES (1, 0, '{audit_chain.BEGINNING}')",
        "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'",
        "COMMIT",
    ]
)


class Server:
    """A server that tests may also kill and start again. fsync is on."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not below pytest's folder: only root may enter that.
        self.folder = Path(tempfile.mkdtemp(prefix="klinket-pg-", dir="/tmp"))
        self._as_owner: list[str] = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._as_owner = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--"]
        initdb = ["initdb", "-D", "data", "-U", "klinket", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run(self._command(*initdb), cwd=self.folder, check=True, stdout=subprocess.DEVNULL, timeout=120)
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self._shared: PostgresAddress | None = None

    def _command(self, name: str, *arguments: str) -> list[str]:
        return [*self._as_owner, str(self._programs / name), *arguments]

    def start(self) -> None:
        """Start, and return when it answers."""
        given = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            self._command("postgres", "-D", "data", "-k", str(self.folder), *given), cwd=self.folder, stdout=log, stderr=log
        )
        log.close()
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.connect("postgres").close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server. SIGINT: at once, but orderly; SIGQUIT: as in a crash; SIGKILL: of each of its processes."""
        assert self._process is not None
        if number is signal.SIGKILL:
            for child in _children(self._process.pid):
                os.kill(child, number)
        self._process.send_signal(number)
        self._process.wait(PATIENCE)

    def close(self) -> None:
        """End the server for good and remove its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://klinket@/{name}?host={self.folder}"

    def connect(self, name: str) -> psycopg.Connection:
        """Return a connection of the test's own; each statement commits."""
        return psycopg.connect(self.url(name), autocommit=True, connect_timeout=5)

    def administer(self, statement: str, *names: str) -> None:
        """Run a statement about databases."""
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def empty_database(self) -> PostgresAddress:
        """Return a new database without tables."""
        name = f"klinket_{next(self._numbers)}"
        self.administer("CREATE DATABASE {} TEMPLATE template0", name)
        return PostgresAddress.parse(self.url(name))

    def database(self) -> PostgresAddress:
        """Return the one database for tests that follow each other: with all tables, empty, in a life (epoch) of its own.

        Making a database takes half a second, emptying one some milliseconds.
        """
        if self._shared is None:
            self._shared = self.empty_database()
            backend = PostgresBackend(self._shared, exclusive=True)
            backend.writer.dispose()
            backend.reader.dispose()
        with self.connect(self._shared.parameters["dbname"]) as connection:
            connection.execute(_END_OTHERS)
            connection.execute(_EMPTY.encode())
        return self._shared


def everything(address: PostgresAddress) -> bytes:
    """Return all values of a database: texts as UTF-8, bytes as they are."""
    found: list[bytes] = []
    with psycopg.connect(**address.parameters, autocommit=True) as connection:  # type: ignore[arg-type]
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            for row in connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))):
                found.extend(value if isinstance(value, bytes) else str(value).encode() for value in row)
    return b"\n".join(found)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
