"""The migrations make exactly the schema that the code uses, on both databases, and every rule in it has a name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, inspect

from klinket.controller.database import PostgresAddress
from klinket.controller.store.engine import open_store
from klinket.controller.store.migrate import configuration, missing, upgrade
from klinket.controller.store.schema import metadata
from klinket.domain import audit_chain
from klinket.domain.audit import Actor, ActorType, AuditAction, AuditEvent
from klinket.domain.errors import InvalidInput
from tests.unit.controller.postgres import Server

TABLES = sorted(metadata.tables)
DIALECTS = ("sqlite", "postgresql")


def engine_of(database: Path | PostgresAddress) -> Engine:
    if isinstance(database, Path):
        return create_engine(f"sqlite:///{database}")
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**database.parameters))  # type: ignore[arg-type]


def empty(dialect: str, request: pytest.FixtureRequest, folder: Path) -> Path | PostgresAddress:
    if dialect == "sqlite":
        return folder / "klinket.db"
    server: Server = request.getfixturevalue("postgres")
    return server.empty_database()


@pytest.fixture(params=DIALECTS)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | PostgresAddress:
    return empty(request.param, request, tmp_path)


@pytest.fixture(scope="module", params=DIALECTS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Engine]]:
    """One database that was migrated, and one that was made from the code's schema."""
    migrated, created = (engine_of(empty(request.param, request, tmp_path_factory.mktemp("made"))) for _ in range(2))
    with migrated.connect() as connection:
        upgrade(connection)
    metadata.create_all(created)
    yield migrated, created
    migrated.dispose()
    created.dispose()


def test_the_migrations_make_the_schema_of_the_code(both: tuple[Engine, Engine]) -> None:
    with both[0].connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert not missing(connection)


def definitions(connection: Connection, table: str) -> dict[str, object]:
    """Return what alembic's comparison leaves out: checks, foreign keys with their actions, and ids never given twice."""
    look = inspect(connection)
    if connection.dialect.name == "sqlite":
        text = connection.exec_driver_sql(f"SELECT sql FROM sqlite_master WHERE name = '{table}'").scalar_one()
        ids: object = "AUTOINCREMENT" in text
    else:
        ids = connection.exec_driver_sql(
            f"SELECT pg_get_serial_sequence('{table}', '{look.get_columns(table)[0]['name']}')"
        ).scalar()
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
        "ids": ids,
    }


@pytest.mark.parametrize("table", TABLES)
def test_a_migrated_table_equals_a_created_one(table: str, both: tuple[Engine, Engine]) -> None:
    with both[0].connect() as one, both[1].connect() as other:
        assert definitions(one, table) == definitions(other, table)


@pytest.mark.parametrize("table", TABLES)
def test_every_rule_has_a_name(table: str) -> None:
    for constraint in metadata.tables[table].constraints:
        assert constraint.name, f"{table}: {constraint}"
    for index in metadata.tables[table].indexes:
        assert index.name
        assert len(str(index.name)) <= 63, "PostgreSQL cuts longer names off"


def test_an_upgrade_that_finds_nothing_to_do_changes_nothing(both: tuple[Engine, Engine]) -> None:
    with both[0].connect() as connection:
        before = connection.exec_driver_sql("SELECT epoch, revision FROM head").one()
    with both[0].connect() as connection:
        upgrade(connection)
        assert connection.exec_driver_sql("SELECT epoch, revision FROM head").one() == before


# ---- a database of the first schema, with something in it

ACTOR = {"type": "API", "id": "1", "info": {"name": "first token"}, "source": "192.0.2.1"}
UNKNOWN = {"type": "System", "id": None, "info": None}
EVENTS = [
    ("create", ACTOR, [{"version": "1", "type": "serviceAccount", "id": "1", "name": "Bäckerei \U0001f980"}], {}),
    ("edit", ACTOR | {"source": None}, [], {"before": {"name": 'quo"te\x00'}, "after": {"name": "\ud800", "n": 1 << 70}}),
    ("cut", UNKNOWN, [{"version": "1", "type": "serviceAccountKey", "id": "1", "name": "runner"}], {"days": 0.5}),
]


def fill_the_first_schema(connection: Connection) -> None:
    """Migrate to 0001 and write what a controller of that time wrote."""
    command.upgrade(configuration(connection), "0001")
    first = MetaData()
    first.reflect(connection)

    def add(table: str, **values: object) -> None:
        of: Table = metadata.tables[table]
        reflected = first.tables[table]
        for column in reflected.columns:
            column.type = of.c[column.name].type  # SQLite does not remember which text is JSON
        times = {name: 7 for name in ("created_at_ms", "updated_at_ms") if name in reflected.c}
        connection.execute(reflected.insert().values({**times, **values}))

    add("head", id=1, epoch=77, revision=12)
    add("service_accounts", name="ci", uuid="u")
    for number in (1, 2):
        add("service_keys", name="runner", service_account_id=1, kid=f"k{number}", public_key="PEM", expiry_cut=False)
    add("api_tokens", name="ops", token_hash="h", scopes=["read"], is_enabled=True, allowed_ranges=[])
    add("flow_events", connector_id=1, batch=1, number=0, time_ms=5, event={"kind": "opened"})
    for at, (action, actor, targets, detail) in enumerate(EVENTS):
        add("audit_events", time_ms=1_700_000_000_123 + at, action=action, actor=actor, targets=targets, detail=detail)
    connection.commit()


async def test_what_a_database_of_the_first_schema_holds_goes_on(empty_database: Path | PostgresAddress) -> None:
    engine = engine_of(empty_database)
    with engine.connect() as connection:
        fill_the_first_schema(connection)
    engine.dispose()
    store = open_store(empty_database, lambda: 1_800_000_000.0)

    def record(tx: object) -> None:
        tx.record(AuditEvent(AuditAction.CREATE, Actor(ActorType.SYSTEM, name="controller"), ()))  # type: ignore[attr-defined]

    await store.write(record)
    events = await store.read(lambda tx: tx.audit.find())
    assert [(row.action, row.targets, row.detail) for row in events[:-1]] == [(one[0], one[2], one[3]) for one in EVENTS]
    digest = audit_chain.BEGINNING
    for number, row in enumerate(events, 1):
        actor = dict(row.actor)
        source = actor.pop("source", None)
        event = AuditEvent(
            AuditAction(row.action), Actor(ActorType(actor["type"]), source=source), tuple(row.targets), row.detail
        )
        exported = audit_chain.exported(event, number=number, time_ms=row.time_ms, previous=digest) | {"actor": actor}
        digest = audit_chain.digest_of(exported)
        assert (row.number, row.digest) == (number, digest)
    head = await store.read(lambda tx: tx.audit_head.get(1))
    assert head is not None
    assert (head.number, head.digest) == (len(EVENTS) + 1, digest)
    keys = await store.read(lambda tx: tx.service_keys.find())
    assert [(row.kid, row.origin, row.created_by, row.last_used_ms) for row in keys] == [
        (f"k{number}", "controller", UNKNOWN, None) for number in (1, 2)
    ]
    tokens = await store.read(lambda tx: tx.api_tokens.find())
    assert [(row.name, row.scopes, row.created_by) for row in tokens] == [("ops", ["read"], UNKNOWN)]
    assert (await store.read(lambda tx: tx.head()))[0] == 77
    await store.write(lambda tx: tx.service_keys.remove(kid="k2"))
    added = await store.write(
        lambda tx: tx.service_keys.add(
            name="next",
            service_account_id=1,
            kid="k3",
            public_key="PEM",
            expiry_cut=False,
            origin="controller",
            created_by=UNKNOWN,
        )
    )
    assert added.id == 3, "the id of a key that was deleted came back"
    store.close()


async def test_a_guest_does_not_migrate(postgres: Server) -> None:
    address = postgres.empty_database()
    with pytest.raises(InvalidInput, match="does not hold this version's tables"):
        open_store(address, lambda: 0.0, as_guest=True)
    engine = engine_of(address)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []
    engine.dispose()
