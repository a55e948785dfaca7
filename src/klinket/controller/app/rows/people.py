"""Rows of users, their groups, devices and console sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
class ConsoleSessionRow:
    """A user's session of the console. `stage`: how far the sign-in has come; `proved_at_ms`: the last proof of who it is.

    `form_token`: what every form of this session carries.
    """

    id: int
    created_at_ms: int
    token_hash: str = field(repr=False)
    form_token: str = field(repr=False)
    user_id: int
    stage: str
    proved_at_ms: int
    last_seen_ms: int
    address: str
    user_agent: str


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
