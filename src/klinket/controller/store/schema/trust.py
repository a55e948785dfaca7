"""Who is believed: sessions, assertions, keys and tokens."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, Text, UniqueConstraint

from klinket.controller.store.schema.columns import id_, metadata, name, times

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
    Index(None, "ended_at_ms", "created_at_ms"),
    Index(None, "jkt"),
)

used_assertions = Table(
    "used_assertions",
    metadata,
    id_(),
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
    id_(),
    *times(),
    name(),
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
    id_(),
    *times(),
    name(),
    Column("token_hash", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("is_enabled", Boolean, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("allowed_ranges", JSON, nullable=False),
    Column("last_used_ms", BigInteger),
    Column("created_by", JSON, nullable=False),
    UniqueConstraint("name"),
    UniqueConstraint("token_hash"),
    sqlite_autoincrement=True,
)
