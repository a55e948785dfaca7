"""What lists of services and keys show of them: read for a part of the list at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from klinket.controller.app import flow_totals
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ServiceAccountRow, ServiceKeyRow
from klinket.domain.errors import LifecycleError
from klinket.domain.service_key import SECONDS_PER_DAY, WARN_DAYS, KeyEvent, KeyState, apply, is_idle

DAY_MS = SECONDS_PER_DAY * 1000
#: The time small charts show, and how long one of their points is.
CHART_MS = 7 * DAY_MS
STEP_MS = 6 * flow_totals.HOUR_MS
#: Days before its end from which on a key is shown as one that expires soon.
SOON_MS = max(WARN_DAYS) * DAY_MS


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """Keys of a service account by state; `expiring`: those of `active` that expire soon."""

    active: int
    expiring: int
    revoked: int
    expired: int

    @property
    def total(self) -> int:
        """Return how many keys there are."""
        return self.active + self.revoked + self.expired


@dataclass(frozen=True, slots=True)
class ListedService:
    """A line of the list. `flows`: established in each step of the chart, the newest last."""

    row: ServiceAccountRow
    keys: KeyCounts
    resources: int
    live_flows: int
    last_used_ms: int | None
    flows: list[int]


def key_counts(tx: Transaction, accounts: Sequence[int]) -> dict[int, KeyCounts]:
    """Return the keys of accounts, by state."""
    mine: dict[str, Any] = {"service_account_id": accounts}
    now = {"expires_at_ms": tx.now_ms + 1}
    every = tx.service_keys.counts("service_account_id", **mine)
    good = tx.service_keys.counts("service_account_id", revoked_at_ms=None, **mine)
    expired = tx.service_keys.counts("service_account_id", below=now, revoked_at_ms=None, **mine)
    until = {"expires_at_ms": tx.now_ms + SOON_MS}
    soon = tx.service_keys.counts("service_account_id", least=now, below=until, revoked_at_ms=None, **mine)
    return {
        id: KeyCounts(
            good.get(id, 0) - expired.get(id, 0), soon.get(id, 0), every.get(id, 0) - good.get(id, 0), expired.get(id, 0)
        )
        for id in accounts
    }


def listed(tx: Transaction, rows: Sequence[ServiceAccountRow]) -> list[ListedService]:
    """Return the lines of some service accounts, in their order."""
    ids = [row.id for row in rows]
    keys = key_counts(tx, ids)
    resources = tx.access.counts("service_account_id", service_account_id=ids)
    living = tx.live_flows.counts("service_account_id", service_account_id=ids)
    used = tx.service_keys.highest("last_used_ms", "service_account_id", service_account_id=ids)
    flows = flow_totals.along(tx, "service_account_id", tx.now_ms - CHART_MS, STEP_MS, service_account_id=ids)
    return [
        ListedService(
            row, keys[row.id], resources.get(row.id, 0), living.get(row.id, 0), used.get(row.id), flows.get(row.id, [0, 0])
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key with what its state allows. `replaced_by`: the key that takes over from it; `account`: its service's name."""

    row: ServiceKeyRow
    account: str
    state: KeyState
    actions: frozenset[str]
    expires_soon: bool
    is_idle: bool
    replaced_by: ServiceKeyRow | None
    live_flows: int
    sessions: int


def allowed(state: KeyState) -> frozenset[str]:
    """Return what somebody may do with a key in a state, by the lifecycle: words of KeyEvent."""
    return frozenset(event.value for event in (KeyEvent.RENAME, KeyEvent.REVOKE, KeyEvent.DELETE) if _may(state, event))


def _may(state: KeyState, event: KeyEvent) -> bool:
    try:
        apply(state, event)
    except LifecycleError:
        return False
    return True


def listed_keys(tx: Transaction, rows: Sequence[ServiceKeyRow]) -> list[ListedKey]:
    """Return the lines of some keys, in their order."""
    ids = [row.id for row in rows]
    names = {row.id: row.name for row in tx.service_accounts.find(id={row.service_account_id for row in rows})}
    newer = {row.replaces_key_id: row for row in tx.service_keys.find(replaces_key_id=ids)}
    living = tx.live_flows.counts("service_key_id", service_key_id=ids)
    sessions = tx.sessions.counts("service_key_id", service_key_id=ids, ended_at_ms=None)

    def line(row: ServiceKeyRow) -> ListedKey:
        state = row.state(tx.now_ms)
        is_active = state is KeyState.ACTIVE
        used = None if row.last_used_ms is None else row.last_used_ms / 1000
        return ListedKey(
            row,
            names[row.service_account_id],
            state,
            allowed(state),
            is_active and row.expires_at_ms is not None and row.expires_at_ms < tx.now_ms + SOON_MS,
            is_active and not row.is_canary and is_idle(row.created_at_ms / 1000, used, tx.now_ms / 1000),
            newer.get(row.id),
            living.get(row.id, 0),
            sessions.get(row.id, 0),
        )

    return [line(row) for row in rows]
