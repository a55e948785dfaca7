"""A running controller: `controller` answers requests, `live` has live channels as well.

Tests that use a database, through whatever fixture, run on SQLite and on PostgreSQL, unless they are marked `sqlite_only`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from klinket.controller.database import PostgresAddress
from tests.unit.controller.postgres import Server, binaries
from tests.unit.controller.running import Running


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("sqlite_only") is not None
        metafunc.parametrize("database", ["sqlite"] if only else ["sqlite", "postgres"], indirect=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """PostgreSQL's server, one per process that runs tests; killing it is for `postgres_of_its_own`."""
    yield from _server()


@pytest.fixture
def postgres_of_its_own() -> Iterator[Server]:
    yield from _server()


def _server() -> Iterator[Server]:
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    server = Server(programs)
    yield server
    server.close()


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | PostgresAddress]:
    """Where a new database is, or is to be made."""
    if request.param == "sqlite":
        yield tmp_path / "state" / "klinket.db"
        return
    server: Server = request.getfixturevalue("postgres")
    yield server.database()


@pytest.fixture
async def controller(tmp_path: Path, database: Path | PostgresAddress) -> AsyncIterator[Running]:
    running = Running(tmp_path / "state", database if isinstance(database, PostgresAddress) else None)
    await running.open()
    yield running
    running.controller.unproven_refusals.cancel()
    running.store.close()


@pytest.fixture
async def live(controller: Running) -> AsyncIterator[Running]:
    async with controller.listening():
        yield controller
