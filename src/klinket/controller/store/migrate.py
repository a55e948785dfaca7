"""Brings a database to the newest schema."""

from __future__ import annotations

import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, select

from klinket.controller.store import schema

MIGRATIONS = Path(__file__).parent / "migrations"


def configuration(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for our migrations; `connection`: the one they run on."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run what is missing up to `revision`, in one transaction (the one that was begun), and make a new database's head row."""
    if not connection.in_transaction():
        connection.begin()
    command.upgrade(configuration(connection), revision)
    _make_head(connection)
    connection.commit()


def missing(connection: Connection) -> bool:
    """Return whether the database has another schema than this version's."""
    found = MigrationContext.configure(connection).get_current_heads()
    return set(found) != set(ScriptDirectory.from_config(configuration()).get_heads())


def _make_head(connection: Connection) -> None:
    if connection.execute(select(schema.head.c.id)).first() is None:
        epoch = round(time.time() * 1000)  # another database is another life, and a later one
        connection.execute(insert(schema.head).values(id=1, epoch=epoch, revision=1))
