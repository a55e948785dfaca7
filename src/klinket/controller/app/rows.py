"""Rows of the store as use cases see them. Times end in `_ms`: milliseconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from klinket.domain.service_key import KeyState, state_of


@dataclass(frozen=True, slots=True)
class RemoteNetworkRow:
    id: int
    created_at_ms: int
    updated_at_ms: int
    name: str
    location: str
    network_type: str
    is_active: bool


@dataclass(frozen=True, slots=True)
class ConnectorRow:
    id: int
    created_at_ms: int
    updated_at_ms: int
    name: str
    remote_network_id: int
    has_status_notifications: bool
    access_token_hash: str | None = field(repr=False)
    refresh_token_hash: str | None = field(repr=False)
    enrolled_jkt: str | None
    version: str | None
    hostname: str | None
    public_ip: str | None
    private_ips: list[str]
    last_heartbeat_ms: int | None


@dataclass(frozen=True, slots=True)
class SecurityPolicyRow:
    id: int
    created_at_ms: int
    updated_at_ms: int
    name: str
    policy_type: str


@dataclass(frozen=True, slots=True)
class ResourceRow:
    id: int
    created_at_ms: int
    updated_at_ms: int
    name: str
    address: str
    alias: str | None
    remote_network_id: int
    protocols: dict[str, Any]
    is_active: bool
    is_visible: bool
    is_browser_shortcut_enabled: bool
    routing_mode: str
    tags: list[dict[str, str]]
    approval_mode: str
    access_mode: str
    access_duration_seconds: int | None
    security_policy_id: int | None


@dataclass(frozen=True, slots=True)
class ServiceAccountRow:
    id: int
    created_at_ms: int
    updated_at_ms: int
    name: str
    uuid: str


@dataclass(frozen=True, slots=True)
class ServiceKeyRow:
    """`origin`: who made the pair; `last_used_by`: host, address and client version of the last login.

    A key with `replaces_key_id` ends that key at its own first use, or when `overlap_ends_ms` comes. `warned_days`: the last
    warning of its expiry.
    """

    id: int
    created_at_ms: int
    updated_at_ms: int
    name: str
    service_account_id: int
    kid: str
    public_key: str
    expires_at_ms: int | None
    revoked_at_ms: int | None
    expiry_cut: bool
    origin: str
    created_by: dict[str, Any]
    last_used_ms: int | None
    last_used_by: dict[str, Any] | None
    replaces_key_id: int | None
    overlap_ends_ms: int | None
    warned_days: int | None

    @property
    def expires_at(self) -> float | None:
        """Return the expiry in seconds since the epoch; None: never."""
        return None if self.expires_at_ms is None else self.expires_at_ms / 1000

    def state(self, now_ms: int) -> KeyState:
        """Return the state of the key at a moment."""
        revoked_at = None if self.revoked_at_ms is None else self.revoked_at_ms / 1000
        return state_of(revoked_at=revoked_at, expires_at=self.expires_at, now=now_ms / 1000)


@dataclass(frozen=True, slots=True)
class AccessRow:
    id: int
    created_at_ms: int
    updated_at_ms: int
    resource_id: int
    service_account_id: int
    expires_at_ms: int | None


@dataclass(frozen=True, slots=True)
class GroupRow:
    id: int
    created_at_ms: int
    updated_at_ms: int
    name: str
    origin_id: str | None
    is_active: bool
    group_type: str
    security_policy_id: int | None


@dataclass(frozen=True, slots=True)
class UserRow:
    id: int
    created_at_ms: int
    updated_at_ms: int
    email: str
    first_name: str | None
    last_name: str | None
    state: str
    role: str
    user_type: str


@dataclass(frozen=True, slots=True)
class GroupMemberRow:
    id: int
    group_id: int
    user_id: int


@dataclass(frozen=True, slots=True)
class GroupAccessRow:
    """What is None is as set on the resource."""

    id: int
    created_at_ms: int
    updated_at_ms: int
    resource_id: int
    group_id: int
    expires_at_ms: int | None
    security_policy_id: int | None
    approval_mode: str | None
    access_mode: str | None
    access_duration_seconds: int | None


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """`facts`: what a client reported, under the names of the Admin API."""

    id: int
    created_at_ms: int
    updated_at_ms: int
    name: str
    user_id: int | None
    is_trusted: bool
    active_state: str
    os_name: str | None
    serial_number: str | None
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SerialNumberRow:
    id: int
    created_at_ms: int
    serial_number: str


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


@dataclass(frozen=True, slots=True)
class CutRow:
    id: int
    created_at_ms: int
    epoch: int
    revision: int
    scope: str
    reason: str
    token: str = field(repr=False)
    actor: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CutReceiptRow:
    id: int
    cut_id: int
    connector_id: int
    connector_name: str
    state: str
    grants_end_at_ms: int
    stopped_at_ms: int | None
    took_ms: float | None
    flows: list[dict[str, Any]]
    token: str | None


@dataclass(frozen=True, slots=True)
class FlowEventRow:
    """`event`: as exported (facts §5), with the names of that time; the columns beside it are what filters ask for."""

    id: int
    connector_id: int
    batch: int
    number: int
    time_ms: int
    kind: str
    flow: str
    service_account_id: int | None
    service_key_id: int | None
    resource_id: int | None
    remote_network_id: int | None
    failure: str | None
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditRow:
    """`number` counts without gaps; `digest` covers the event as exported and the digest before it (domain.audit_chain)."""

    id: int
    time_ms: int
    action: str
    actor: dict[str, Any]
    targets: list[dict[str, Any]]
    detail: dict[str, Any]
    request: dict[str, Any] | None
    number: int
    digest: str


@dataclass(frozen=True, slots=True)
class AuditHeadRow:
    """Number and digest of the last audit event."""

    id: int
    number: int
    digest: str


@dataclass(frozen=True, slots=True)
class AuditSignatureRow:
    """The controller's signature under the digest of one audit event, and so under all before it."""

    id: int
    number: int
    created_at_ms: int
    token: str


@dataclass(frozen=True, slots=True)
class SinkRow:
    """Where events are delivered. The positions are what was delivered last: the events themselves are the outbox."""

    id: int
    created_at_ms: int
    updated_at_ms: int
    name: str
    kind: str
    settings: dict[str, Any]
    sealed_secret: bytes | None = field(repr=False)
    streams: list[str]
    is_enabled: bool
    audit_position: int
    flow_position: int
    attempts: int
    next_try_ms: int | None
    last_delivered_ms: int | None
    last_error: str | None
