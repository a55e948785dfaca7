"""Users, their groups and devices, and what groups may reach."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, UniqueConstraint

from klinket.controller.store.schema.columns import id_, may_have, metadata, name, needs, times

groups = Table(
    "groups",
    metadata,
    id_(),
    *times(),
    name(),
    Column("origin_id", String(255)),
    Column("is_active", Boolean, nullable=False),
    Column("group_type", String(20), nullable=False),
    may_have("security_policy_id", "security_policies"),
    UniqueConstraint("name"),
    sqlite_autoincrement=True,
)

users = Table(
    "users",
    metadata,
    id_(),
    *times(),
    Column("email", String(254), nullable=False),
    Column("first_name", String(255)),
    Column("last_name", String(255)),
    Column("state", String(20), nullable=False),
    Column("role", String(20), nullable=False),
    Column("user_type", String(20), nullable=False),
    UniqueConstraint("email"),
    sqlite_autoincrement=True,
)

group_members = Table(
    "group_members",
    metadata,
    id_(),
    needs("group_id", "groups"),
    needs("user_id", "users"),
    UniqueConstraint("group_id", "user_id"),
    Index(None, "user_id"),
)

group_access = Table(
    "group_access",
    metadata,
    id_(),
    *times(),
    needs("resource_id", "resources"),
    needs("group_id", "groups"),
    Column("expires_at_ms", BigInteger),
    may_have("security_policy_id", "security_policies"),
    Column("approval_mode", String(20)),
    Column("access_mode", String(20)),
    Column("access_duration_seconds", Integer),
    UniqueConstraint("resource_id", "group_id"),
    Index(None, "group_id"),
    Index(None, "expires_at_ms"),
    sqlite_autoincrement=True,
)

devices = Table(
    "devices",
    metadata,
    id_(),
    *times(),
    name(),
    may_have("user_id", "users"),
    Column("is_trusted", Boolean, nullable=False),
    Column("active_state", String(20), nullable=False),
    Column("os_name", String(20)),
    Column("serial_number", String(255)),
    Column("facts", JSON, nullable=False),
    Index(None, "serial_number"),
    Index(None, "user_id"),
    sqlite_autoincrement=True,
)

serial_numbers = Table(
    "serial_numbers",
    metadata,
    id_(),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("serial_number", String(255), nullable=False),
    UniqueConstraint("serial_number"),
    sqlite_autoincrement=True,
)

console_sessions = Table(
    "console_sessions",
    metadata,
    id_(),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("token_hash", String(64), nullable=False),
    Column("form_token", String(64), nullable=False),
    Column("user_id", Integer, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("stage", String(20), nullable=False),
    Column("proved_at_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False),
    Column("address", String(45), nullable=False),
    Column("user_agent", String(300), nullable=False),
    UniqueConstraint("token_hash"),
    Index(None, "user_id"),
    Index(None, "last_seen_ms"),
    sqlite_autoincrement=True,
)
