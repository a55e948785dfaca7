"""Tables. Every rule has a named constraint; names of rules are what Conflict texts are chosen by.

`sqlite_autoincrement`: ids are never given twice, also after a delete; an old id must not come to mean something new.
"""

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
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _times() -> tuple[Column[int], Column[int]]:
    return Column("created_at_ms", BigInteger, nullable=False), Column("updated_at_ms", BigInteger, nullable=False)


def _name() -> Column[str]:
    return Column("name", String(255), nullable=False)


def _needs(column: str, table: str) -> Column[int]:
    return Column(column, Integer, ForeignKey(f"{table}.id", ondelete="RESTRICT"), nullable=False)


def _may_have(column: str, table: str) -> Column[int]:
    return Column(column, Integer, ForeignKey(f"{table}.id", ondelete="RESTRICT"))


head = Table(
    "head",
    metadata,
    _id(),
    Column("epoch", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

remote_networks = Table(
    "remote_networks",
    metadata,
    _id(),
    *_times(),
    _name(),
    Column("location", String(20), nullable=False),
    Column("network_type", String(20), nullable=False),
    Column("is_active", Boolean, nullable=False),
    UniqueConstraint("name"),
    sqlite_autoincrement=True,
)

connectors = Table(
    "connectors",
    metadata,
    _id(),
    *_times(),
    _name(),
    _needs("remote_network_id", "remote_networks"),
    Column("has_status_notifications", Boolean, nullable=False),
    Column("access_token_hash", String(64)),
    Column("refresh_token_hash", String(64)),
    Column("enrolled_jkt", String(43)),
    Column("version", String(100)),
    Column("hostname", String(255)),
    Column("public_ip", String(45)),
    Column("private_ips", JSON, nullable=False),
    Column("last_heartbeat_ms", BigInteger),
    UniqueConstraint("name"),
    UniqueConstraint("access_token_hash"),
    Index(None, "remote_network_id"),
    sqlite_autoincrement=True,
)

security_policies = Table(
    "security_policies",
    metadata,
    _id(),
    *_times(),
    _name(),
    Column("policy_type", String(20), nullable=False),
    UniqueConstraint("name"),
    sqlite_autoincrement=True,
)

resources = Table(
    "resources",
    metadata,
    _id(),
    *_times(),
    _name(),
    Column("address", String(255), nullable=False),
    Column("alias", String(253)),
    _needs("remote_network_id", "remote_networks"),
    Column("protocols", JSON, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("is_visible", Boolean, nullable=False),
    Column("is_browser_shortcut_enabled", Boolean, nullable=False),
    Column("routing_mode", String(20), nullable=False),
    Column("tags", JSON, nullable=False),
    Column("approval_mode", String(20), nullable=False),
    Column("access_mode", String(20), nullable=False),
    Column("access_duration_seconds", Integer),
    _may_have("security_policy_id", "security_policies"),
    UniqueConstraint("alias"),
    Index(None, "remote_network_id"),
    sqlite_autoincrement=True,
)

service_accounts = Table(
    "service_accounts",
    metadata,
    _id(),
    *_times(),
    _name(),
    Column("uuid", String(36), nullable=False),
    UniqueConstraint("name"),
    UniqueConstraint("uuid"),
    sqlite_autoincrement=True,
)

service_keys = Table(
    "service_keys",
    metadata,
    _id(),
    *_times(),
    _name(),
    _needs("service_account_id", "service_accounts"),
    Column("kid", String(64), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    Column("expiry_cut", Boolean, nullable=False),
    UniqueConstraint("kid"),
    Index(None, "service_account_id"),
    sqlite_autoincrement=True,
)

access = Table(
    "access",
    metadata,
    _id(),
    *_times(),
    _needs("resource_id", "resources"),
    _needs("service_account_id", "service_accounts"),
    Column("expires_at_ms", BigInteger),
    UniqueConstraint("resource_id", "service_account_id"),
    Index(None, "service_account_id"),
    sqlite_autoincrement=True,
)

groups = Table(
    "groups",
    metadata,
    _id(),
    *_times(),
    _name(),
    Column("origin_id", String(255)),
    Column("is_active", Boolean, nullable=False),
    Column("group_type", String(20), nullable=False),
    _may_have("security_policy_id", "security_policies"),
    UniqueConstraint("name"),
    sqlite_autoincrement=True,
)

users = Table(
    "users",
    metadata,
    _id(),
    *_times(),
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
    _id(),
    _needs("group_id", "groups"),
    _needs("user_id", "users"),
    UniqueConstraint("group_id", "user_id"),
    Index(None, "user_id"),
)

group_access = Table(
    "group_access",
    metadata,
    _id(),
    *_times(),
    _needs("resource_id", "resources"),
    _needs("group_id", "groups"),
    Column("expires_at_ms", BigInteger),
    _may_have("security_policy_id", "security_policies"),
    Column("approval_mode", String(20)),
    Column("access_mode", String(20)),
    Column("access_duration_seconds", Integer),
    UniqueConstraint("resource_id", "group_id"),
    Index(None, "group_id"),
    sqlite_autoincrement=True,
)

devices = Table(
    "devices",
    metadata,
    _id(),
    *_times(),
    _name(),
    _may_have("user_id", "users"),
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
    _id(),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("serial_number", String(255), nullable=False),
    UniqueConstraint("serial_number"),
    sqlite_autoincrement=True,
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(22), primary_key=True),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("service_account_id", Integer, nullable=False),
    Column("service_key_id", Integer, nullable=False),
    Column("jkt", String(43), nullable=False),
    Column("hostname", String(255), nullable=False),
    Column("client_version", String(100), nullable=False),
    Column("address", String(45), nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("end_reason", String(40)),
    Index(None, "service_account_id"),
    Index(None, "service_key_id"),
)

used_assertions = Table(
    "used_assertions",
    metadata,
    _id(),
    Column("kid", String(64), nullable=False),
    Column("jti", String(128), nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    UniqueConstraint("kid", "jti"),
    Index(None, "expires_at_ms"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", String(64), primary_key=True),
    Column("purpose", String(20), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("public_jwk", JSON, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("retired_at_ms", BigInteger),
)

authorities = Table(
    "authorities",
    metadata,
    Column("purpose", String(20), primary_key=True),
    Column("certificate", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
)

relays = Table(
    "relays",
    metadata,
    _id(),
    *_times(),
    _name(),
    Column("token_hash", String(64), nullable=False),
    Column("address", String(300)),
    Column("certificate_sha256", String(64)),
    UniqueConstraint("name"),
    UniqueConstraint("token_hash"),
    sqlite_autoincrement=True,
)

api_tokens = Table(
    "api_tokens",
    metadata,
    _id(),
    *_times(),
    _name(),
    Column("token_hash", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("is_enabled", Boolean, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("allowed_ranges", JSON, nullable=False),
    Column("last_used_ms", BigInteger),
    UniqueConstraint("name"),
    UniqueConstraint("token_hash"),
    sqlite_autoincrement=True,
)

cuts = Table(
    "cuts",
    metadata,
    _id(),
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
    _id(),
    Column("cut_id", Integer, ForeignKey("cuts.id", ondelete="CASCADE"), nullable=False),
    Column("connector_id", Integer, nullable=False),
    Column("connector_name", String(255), nullable=False),
    Column("state", String(20), nullable=False),
    Column("grants_end_at_ms", BigInteger, nullable=False),
    Column("stopped_at_ms", BigInteger),
    Column("took_ms", Float),
    Column("flows", JSON, nullable=False),
    UniqueConstraint("cut_id", "connector_id"),
)

flow_events = Table(
    "flow_events",
    metadata,
    _id(),
    Column("connector_id", Integer, nullable=False),
    Column("batch", BigInteger, nullable=False),
    Column("number", Integer, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("event", JSON, nullable=False),
    UniqueConstraint("connector_id", "batch", "number"),
    Index(None, "time_ms"),
)

audit_events = Table(
    "audit_events",
    metadata,
    _id(),
    Column("time_ms", BigInteger, nullable=False),
    Column("action", String(20), nullable=False),
    Column("actor", JSON, nullable=False),
    Column("targets", JSON, nullable=False),
    Column("detail", JSON, nullable=False),
    Index(None, "time_ms"),
    sqlite_autoincrement=True,
)
