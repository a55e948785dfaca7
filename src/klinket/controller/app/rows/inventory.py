"""Rows of what is there, and who may reach it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from klinket.domain.account_limits import SeatsExceeded
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
    """What its last heartbeat told: `clock_offset_ms`: by how much its clock is ahead; `started_ms`: when its process began.

    `left_ms`: when it said that it ends; None: it has not.
    """

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
    clock_offset_ms: int | None
    started_ms: int | None
    left_ms: int | None


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
    warning of its expiry. `seats`: sessions at a time, None: as many as the account; `is_canary`: it opens nothing, ever.
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
    seats: int | None = None
    seats_exceeded: str = SeatsExceeded.ALERT.value
    is_canary: bool = False

    @property
    def expires_at(self) -> float | None:
        """Return the expiry in seconds since the epoch; None: never."""
        return None if self.expires_at_ms is None else self.expires_at_ms / 1000

    def state(self, now_ms: int) -> KeyState:
        """Return the state of the key at a moment."""
        revoked_at = None if self.revoked_at_ms is None else self.revoked_at_ms / 1000
        return state_of(revoked_at=revoked_at, expires_at=self.expires_at, now=now_ms / 1000)


@dataclass(frozen=True, slots=True)
class AccountLimitsRow:
    """`own`: limits that are set for this account, by the names of domain.account_limits.AccountLimits."""

    id: int
    created_at_ms: int
    updated_at_ms: int
    service_account_id: int
    own: dict[str, float]


@dataclass(frozen=True, slots=True)
class AccessRow:
    id: int
    created_at_ms: int
    updated_at_ms: int
    resource_id: int
    service_account_id: int
    expires_at_ms: int | None
