"""Rows of who is believed: sessions, keys of the network, tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SessionRow:
    id: str
    created_at_ms: int
    service_account_id: int
    service_key_id: int
    jkt: str
    hostname: str
    client_version: str
    address: str
    ended_at_ms: int | None
    end_reason: str | None


@dataclass(frozen=True, slots=True)
class UsedAssertionRow:
    id: int
    kid: str
    jti: str
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class SigningKeyRow:
    kid: str
    purpose: str
    sealed: bytes = field(repr=False)
    public_jwk: dict[str, Any]
    created_at_ms: int
    retired_at_ms: int | None


@dataclass(frozen=True, slots=True)
class AuthorityRow:
    purpose: str
    certificate: str
    sealed: bytes = field(repr=False)
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class RelayRow:
    id: int
    created_at_ms: int
    updated_at_ms: int
    name: str
    token_hash: str = field(repr=False)
    address: str | None
    certificate_sha256: str | None


@dataclass(frozen=True, slots=True)
class ApiTokenRow:
    id: int
    created_at_ms: int
    updated_at_ms: int
    name: str
    token_hash: str = field(repr=False)
    scopes: list[str]
    is_enabled: bool
    expires_at_ms: int | None
    allowed_ranges: list[str]
    last_used_ms: int | None
    created_by: dict[str, Any]
