"""Audit events become a chain; sinks; what is known of the use and rotation of keys.

Flow events had no reader yet and no names in them: they are dropped.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BEGINNING = "0" * 64


def upgrade() -> None:
    """Apply this migration."""
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_head_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "audit_signatures",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_signatures")),
        sa.UniqueConstraint("number", name=op.f("uq_audit_signatures_number")),
    )
    op.create_table(
        "sinks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=True),
        sa.Column("streams", sa.JSON(), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("audit_position", sa.BigInteger(), nullable=False),
        sa.Column("flow_position", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_delivered_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.String(length=500), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sinks")),
        sa.UniqueConstraint("name", name=op.f("uq_sinks_name")),
        sqlite_autoincrement=True,
    )
    _flow_events()
    _service_keys()
    with op.batch_alter_table("api_tokens", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("created_by", sa.JSON(), nullable=True))
    op.execute(sa.text("UPDATE api_tokens SET created_by = :unknown").bindparams(_UNKNOWN))
    with op.batch_alter_table("api_tokens", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.alter_column("created_by", existing_type=sa.JSON(), nullable=False)
    _audit_events()
    op.create_index(op.f("ix_service_keys_expiry_cut"), "service_keys", ["expiry_cut", "expires_at_ms"], unique=False)
    op.create_index(op.f("ix_access_expires_at_ms"), "access", ["expires_at_ms"], unique=False)
    op.create_index(op.f("ix_group_access_expires_at_ms"), "group_access", ["expires_at_ms"], unique=False)
    op.create_index(op.f("ix_sessions_ended_at_ms"), "sessions", ["ended_at_ms", "created_at_ms"], unique=False)
    op.create_index(op.f("ix_sessions_jkt"), "sessions", ["jkt"], unique=False)


_UNKNOWN = sa.bindparam("unknown", {"type": "System", "id": None, "info": None}, sa.JSON)


def _flow_events() -> None:
    op.drop_table("flow_events")
    op.create_table(
        "flow_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=30), nullable=False),
        sa.Column("flow", sa.String(length=64), nullable=False),
        sa.Column("service_account_id", sa.Integer(), nullable=True),
        sa.Column("service_key_id", sa.Integer(), nullable=True),
        sa.Column("resource_id", sa.Integer(), nullable=True),
        sa.Column("remote_network_id", sa.Integer(), nullable=True),
        sa.Column("failure", sa.String(length=40), nullable=True),
        sa.Column("event", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flow_events")),
        sa.UniqueConstraint("connector_id", "batch", "number", name=op.f("uq_flow_events_connector_id")),
        sqlite_autoincrement=True,
    )
    for column in ("time_ms", "flow", "service_account_id", "resource_id"):
        op.create_index(op.f(f"ix_flow_events_{column}"), "flow_events", [column], unique=False)


def _service_keys() -> None:
    with op.batch_alter_table("service_keys", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("origin", sa.String(length=20), nullable=True))
        batch.add_column(sa.Column("created_by", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("last_used_ms", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("last_used_by", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("replaces_key_id", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("overlap_ends_ms", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("warned_days", sa.Integer(), nullable=True))
    op.execute(sa.text("UPDATE service_keys SET origin = 'controller', created_by = :unknown").bindparams(_UNKNOWN))
    with op.batch_alter_table("service_keys", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.alter_column("origin", existing_type=sa.String(length=20), nullable=False)
        batch.alter_column("created_by", existing_type=sa.JSON(), nullable=False)
        batch.create_foreign_key(
            batch.f("fk_service_keys_replaces_key_id"), "service_keys", ["replaces_key_id"], ["id"], ondelete="SET NULL"
        )
        batch.create_index(batch.f("ix_service_keys_expires_at_ms"), ["expires_at_ms"], unique=False)
        batch.create_index(batch.f("ix_service_keys_replaces_key_id"), ["replaces_key_id"], unique=False)


def _audit_events() -> None:
    with op.batch_alter_table("audit_events", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("request", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("number", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("digest", sa.String(length=64), nullable=True))
    number, digest = _chain(op.get_bind())
    with op.batch_alter_table("audit_events", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.alter_column("number", existing_type=sa.BigInteger(), nullable=False)
        batch.alter_column("digest", existing_type=sa.String(length=64), nullable=False)
        batch.create_unique_constraint(batch.f("uq_audit_events_number"), ["number"])
    head = sa.table("audit_head", sa.column("id"), sa.column("number"), sa.column("digest"))
    op.execute(head.insert().values(id=1, number=number, digest=digest))


def _chain(connection: sa.Connection) -> tuple[int, str]:
    """Number the events there are and link them, as domain.audit_chain did when this was written."""
    json_columns = {name: sa.column(name, sa.JSON) for name in ("actor", "targets", "detail")}
    events = sa.table(
        "audit_events", *(sa.column(name) for name in ("id", "time_ms", "action", "number", "digest")), *json_columns.values()
    )
    number, digest = 0, BEGINNING
    for row in connection.execute(sa.select(events).order_by(events.c.id)).all():
        number += 1
        actor: dict[str, Any] = dict(row.actor)
        source = actor.pop("source", None)
        event = {
            "version": "1",
            "number": number,
            "time": datetime.fromtimestamp(row.time_ms / 1000, UTC).isoformat(),
            "actor": actor,
            "action": row.action,
            "targets": row.targets,
            "source": source,
            "request": None,
            "detail": row.detail,
            "previous": digest,
        }
        canonical = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
        connection.execute(events.update().where(events.c.id == row.id).values(number=number, digest=digest))
    return number, digest
