"""The migrations make exactly the schema that the code uses, and every rule in it has a name."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from klinket.controller.store.migrate import upgrade
from klinket.controller.store.schema import metadata

TABLES = sorted(metadata.tables)


@pytest.fixture
def migrated(tmp_path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with engine.connect() as connection:
        upgrade(connection)
    return engine


def test_the_migrations_make_the_schema_of_the_code(migrated: Engine) -> None:
    with migrated.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def definitions(connection: Connection, table: str) -> dict[str, object]:
    """Return what alembic's comparison leaves out: checks, foreign keys with their actions, and ids never given twice."""
    look = inspect(connection)
    text = connection.exec_driver_sql(f"SELECT sql FROM sqlite_master WHERE name = '{table}'").scalar_one()
    return {
        "columns": [(column["name"], str(column["type"]), column["nullable"]) for column in look.get_columns(table)],
        "checks": sorted((check["name"], check["sqltext"]) for check in look.get_check_constraints(table)),
        "unique": sorted((rule["name"], tuple(rule["column_names"])) for rule in look.get_unique_constraints(table)),
        "foreign": sorted(
            (str(key["name"]), tuple(key["constrained_columns"]), key["referred_table"], str(key["options"]))
            for key in look.get_foreign_keys(table)
        ),
        "indexes": sorted((str(index["name"]), tuple(index["column_names"])) for index in look.get_indexes(table)),
        "primary": look.get_pk_constraint(table)["name"],
        "autoincrement": "AUTOINCREMENT" in text,
    }


@pytest.mark.parametrize("table", TABLES)
def test_a_migrated_table_equals_a_created_one(table: str, migrated: Engine, tmp_path: Path) -> None:
    created = create_engine(f"sqlite:///{tmp_path / 'created.db'}")
    metadata.create_all(created)
    with migrated.connect() as one, created.connect() as other:
        assert definitions(one, table) == definitions(other, table)


@pytest.mark.parametrize("table", TABLES)
def test_every_rule_has_a_name(table: str) -> None:
    for constraint in metadata.tables[table].constraints:
        assert constraint.name, f"{table}: {constraint}"
    for index in metadata.tables[table].indexes:
        assert index.name


@pytest.mark.parametrize("table", TABLES)
def test_a_table_can_be_made_on_postgresql(table: str) -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    text = str(CreateTable(metadata.tables[table]).compile(dialect=dialect))
    assert "AUTOINCREMENT" not in text
    for index in metadata.tables[table].indexes:
        assert len(str(index.name)) <= 63, "PostgreSQL cuts longer names off"
        CreateIndex(index).compile(dialect=dialect)


def test_an_upgrade_that_finds_nothing_to_do_changes_nothing(migrated: Engine) -> None:
    with migrated.connect() as connection:
        before = connection.exec_driver_sql("SELECT epoch, revision FROM head").one()
    with migrated.connect() as connection:
        upgrade(connection)
        assert connection.exec_driver_sql("SELECT epoch, revision FROM head").one() == before
