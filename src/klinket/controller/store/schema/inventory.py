"""What is protected and who may reach it."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from klinket.controller.store.schema.columns import id_, may_have, metadata, name, needs, times

head = Table(
    "head",
    metadata,
    id_(),
    Column("epoch", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("proven_epoch", BigInteger),
    Column("proven_revision", BigInteger),
    CheckConstraint("id = 1", name="one_row"),
)

remote_networks = Table(
    "remote_networks",
    metadata,
    id_(),
    *times(),
    name(),
    Column("location", String(20), nullable=False),
    Column("network_type", String(20), nullable=False),
    Column("is_active", Boolean, nullable=False),
    UniqueConstraint("name"),
    sqlite_autoincrement=True,
)

connectors = Table(
    "connectors",
    metadata,
    id_(),
    *times(),
    name(),
    needs("remote_network_id", "remote_networks"),
    Column("has_status_notifications", Boolean, nullable=False),
    Column("access_token_hash", String(64)),
    Column("refresh_token_hash", String(64)),
    Column("enrolled_jkt", String(43)),
    Column("version", String(100)),
    Column("hostname", String(255)),
    Column("public_ip", String(45)),
    Column("private_ips", JSON, nullable=False),
    Column("last_heartbeat_ms", BigInteger),
    Column("clock_offset_ms", BigInteger),
    Column("started_ms", BigInteger),
    Column("left_ms", BigInteger),
    UniqueConstraint("name"),
    UniqueConstraint("access_token_hash"),
    Index(None, "remote_network_id"),
    sqlite_autoincrement=True,
)

security_policies = Table(
    "security_policies",
    metadata,
    id_(),
    *times(),
    name(),
    Column("policy_type", String(20), nullable=False),
    UniqueConstraint("name"),
    sqlite_autoincrement=True,
)

resources = Table(
    "resources",
    metadata,
    id_(),
    *times(),
    name(),
    Column("address", String(255), nullable=False),
    Column("alias", String(253)),
    needs("remote_network_id", "remote_networks"),
    Column("protocols", JSON, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("is_visible", Boolean, nullable=False),
    Column("is_browser_shortcut_enabled", Boolean, nullable=False),
    Column("routing_mode", String(20), nullable=False),
    Column("tags", JSON, nullable=False),
    Column("approval_mode", String(20), nullable=False),
    Column("access_mode", String(20), nullable=False),
    Column("access_duration_seconds", Integer),
    may_have("security_policy_id", "security_policies"),
    UniqueConstraint("alias"),
    Index(None, "remote_network_id"),
    sqlite_autoincrement=True,
)

service_accounts = Table(
    "service_accounts",
    metadata,
    id_(),
    *times(),
    name(),
    Column("uuid", String(36), nullable=False),
    UniqueConstraint("name"),
    UniqueConstraint("uuid"),
    sqlite_autoincrement=True,
)

service_keys = Table(
    "service_keys",
    metadata,
    id_(),
    *times(),
    name(),
    needs("service_account_id", "service_accounts"),
    Column("kid", String(64), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    Column("expiry_cut", Boolean, nullable=False),
    Column("origin", String(20), nullable=False),
    Column("created_by", JSON, nullable=False),
    Column("last_used_ms", BigInteger),
    Column("last_used_by", JSON),
    Column("replaces_key_id", Integer, ForeignKey("service_keys.id", ondelete="SET NULL")),
    Column("overlap_ends_ms", BigInteger),
    Column("warned_days", Integer),
    Column("seats", Integer),
    Column("seats_exceeded", String(10), nullable=False, server_default="alert"),
    Column("is_canary", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("kid"),
    Index(None, "service_account_id"),
    Index(None, "expires_at_ms"),
    Index(None, "expiry_cut", "expires_at_ms"),
    Index(None, "replaces_key_id"),
    sqlite_autoincrement=True,
)

account_limits = Table(
    "account_limits",
    metadata,
    id_(),
    *times(),
    needs("service_account_id", "service_accounts"),
    Column("own", JSON, nullable=False),
    UniqueConstraint("service_account_id"),
    sqlite_autoincrement=True,
)

access = Table(
    "access",
    metadata,
    id_(),
    *times(),
    needs("resource_id", "resources"),
    needs("service_account_id", "service_accounts"),
    Column("expires_at_ms", BigInteger),
    UniqueConstraint("resource_id", "service_account_id"),
    Index(None, "service_account_id"),
    Index(None, "expires_at_ms"),
    sqlite_autoincrement=True,
)
