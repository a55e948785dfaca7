"""Rows of what happened, and of where it is delivered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
class LiveFlowRow:
    """A flow that was established and has not ended as far as its connector has told. `event`: as in FlowEventRow."""

    id: int
    connector_id: int
    flow: str
    established_at_ms: int
    session: str
    service_account_id: int | None
    service_key_id: int | None
    resource_id: int | None
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FlowTotalRow:
    """How many events of a kind there were in one hour; 0 in place of an unknown account or resource, "" of no failure."""

    id: int
    hour_ms: int
    service_account_id: int
    resource_id: int
    kind: str
    failure: str
    flows: int
    bytes_from_client: int
    bytes_to_client: int


@dataclass(frozen=True, slots=True)
class FlowHourRow:
    """The same of all accounts and resources together."""

    id: int
    hour_ms: int
    kind: str
    failure: str
    flows: int
    bytes_from_client: int
    bytes_to_client: int


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
class AuditAnchorRow:
    """Number, digest and time of the last audit event that retention removed; `token`: a signed SignedAnchor."""

    id: int
    number: int
    digest: str
    until_ms: int
    created_at_ms: int
    token: str


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
