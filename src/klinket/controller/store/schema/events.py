"""What happened, and where it is delivered."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from klinket.controller.store.schema.columns import id_, metadata, name, times

cuts = Table(
    "cuts",
    metadata,
    id_(),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("scope", String(200), nullable=False),
    Column("reason", String(40), nullable=False),
    Column("token", Text, nullable=False),
    Column("actor", JSON, nullable=False),
    Index(None, "created_at_ms"),
    sqlite_autoincrement=True,
)

cut_receipts = Table(
    "cut_receipts",
    metadata,
    id_(),
    Column("cut_id", Integer, ForeignKey("cuts.id", ondelete="CASCADE"), nullable=False),
    Column("connector_id", Integer, nullable=False),
    Column("connector_name", String(255), nullable=False),
    Column("state", String(20), nullable=False),
    Column("grants_end_at_ms", BigInteger, nullable=False),
    Column("stopped_at_ms", BigInteger),
    Column("took_ms", Float),
    Column("flows", JSON, nullable=False),
    Column("token", Text),
    UniqueConstraint("cut_id", "connector_id"),
)

flow_events = Table(
    "flow_events",
    metadata,
    id_(),
    Column("connector_id", Integer, nullable=False),
    Column("batch", BigInteger, nullable=False),
    Column("number", Integer, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("kind", String(30), nullable=False),
    Column("flow", String(64), nullable=False),
    Column("service_account_id", Integer),
    Column("service_key_id", Integer),
    Column("resource_id", Integer),
    Column("remote_network_id", Integer),
    Column("failure", String(40)),
    Column("event", JSON, nullable=False),
    UniqueConstraint("connector_id", "batch", "number"),
    Index(None, "time_ms"),
    Index(None, "flow"),
    Index(None, "service_account_id"),
    Index(None, "resource_id"),
    # What a list by time is narrowed by: the newest of one of them are found without looking at others. Not by kind or connector,
    # of which there are few: SQLite would take such an index for questions in the order of ids, and sort half of the table.
    *(
        Index(f"ix_flow_events_{column}_by_time", column, "time_ms")
        for column in ("service_account_id", "service_key_id", "resource_id", "failure")
    ),
    sqlite_autoincrement=True,
)

live_flows = Table(
    "live_flows",
    metadata,
    id_(),
    Column("connector_id", Integer, nullable=False),
    Column("flow", String(64), nullable=False),
    Column("established_at_ms", BigInteger, nullable=False),
    Column("session", String(64), nullable=False),
    Column("service_account_id", Integer),
    Column("service_key_id", Integer),
    Column("resource_id", Integer),
    Column("event", JSON, nullable=False),
    UniqueConstraint("connector_id", "flow"),
    Index(None, "session"),
    Index(None, "service_account_id"),
    Index(None, "service_key_id"),
    Index(None, "resource_id"),
    sqlite_autoincrement=True,
)

flow_totals = Table(
    "flow_totals",
    metadata,
    id_(),
    Column("hour_ms", BigInteger, nullable=False),
    Column("service_account_id", Integer, nullable=False),
    Column("resource_id", Integer, nullable=False),
    Column("kind", String(30), nullable=False),
    Column("failure", String(40), nullable=False),
    Column("flows", BigInteger, nullable=False),
    Column("bytes_from_client", BigInteger, nullable=False),
    Column("bytes_to_client", BigInteger, nullable=False),
    UniqueConstraint("hour_ms", "service_account_id", "resource_id", "kind", "failure"),
    Index(None, "service_account_id", "hour_ms", "kind", "flows"),
    Index(None, "resource_id", "hour_ms"),
)

flow_hours = Table(
    "flow_hours",
    metadata,
    id_(),
    Column("hour_ms", BigInteger, nullable=False),
    Column("kind", String(30), nullable=False),
    Column("failure", String(40), nullable=False),
    Column("flows", BigInteger, nullable=False),
    Column("bytes_from_client", BigInteger, nullable=False),
    Column("bytes_to_client", BigInteger, nullable=False),
    UniqueConstraint("hour_ms", "kind", "failure"),
)

audit_events = Table(
    "audit_events",
    metadata,
    id_(),
    Column("time_ms", BigInteger, nullable=False),
    Column("action", String(20), nullable=False),
    Column("actor", JSON, nullable=False),
    Column("targets", JSON, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("request", JSON),
    Column("number", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    UniqueConstraint("number"),
    Index(None, "time_ms"),
    sqlite_autoincrement=True,
)

audit_head = Table(
    "audit_head",
    metadata,
    id_(),
    Column("number", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

audit_signatures = Table(
    "audit_signatures",
    metadata,
    id_(),
    Column("number", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
    UniqueConstraint("number"),
)

audit_anchor = Table(
    "audit_anchor",
    metadata,
    id_(),
    Column("number", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

sinks = Table(
    "sinks",
    metadata,
    id_(),
    *times(),
    name(),
    Column("kind", String(20), nullable=False),
    Column("settings", JSON, nullable=False),
    Column("sealed_secret", LargeBinary),
    Column("streams", JSON, nullable=False),
    Column("is_enabled", Boolean, nullable=False),
    Column("audit_position", BigInteger, nullable=False),
    Column("flow_position", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_try_ms", BigInteger),
    Column("last_delivered_ms", BigInteger),
    Column("last_error", String(500)),
    UniqueConstraint("name"),
    sqlite_autoincrement=True,
)
