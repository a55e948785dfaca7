"""Who may reach what, in memory, stamped with the revision it was read at: decisions need no SQL (DESIGN §7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from klinket.controller.app.ports import Transaction
from klinket.controller.app.resources import BYPASS, to_domain
from klinket.controller.app.rows import ConnectorRow, RelayRow
from klinket.domain.cut import Stamp
from klinket.domain.errors import (
    AuthenticationFailed,
    ServiceKeyExpired,
    ServiceKeyRevoked,
    ServiceKeyUnknown,
    SessionOver,
)
from klinket.domain.grant import Principal
from klinket.domain.identifiers import Kid, RemoteNetworkId, ServiceAccountUuid
from klinket.domain.resource import Resource

#: Milliseconds for which an ended session is remembered: longer than any certificate or token of it could live.
ENDED_MS = 2 * 3_600_000


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What counts of a service key."""

    account: ServiceAccountUuid
    revoked: bool
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Read-only. `next_expiry`: when access or a key ends by itself (seconds since the epoch); a past one is not ended yet."""

    stamp: Stamp
    accounts: Mapping[ServiceAccountUuid, tuple[Resource, ...]]
    keys: Mapping[Kid, KeyFacts]
    connectors: Mapping[RemoteNetworkId, tuple[ConnectorRow, ...]]
    relays: tuple[RelayRow, ...]
    ended_sessions: frozenset[str]
    next_expiry: float | None

    def check(self, principal: Principal, now: float) -> None:
        """Raise what ended this principal's session, if anything did."""
        key = self.keys.get(principal.key)
        refusal: AuthenticationFailed | None = None
        if key is None or key.account != principal.account:
            refusal = ServiceKeyUnknown("the service key was deleted")
        elif key.revoked:
            refusal = ServiceKeyRevoked("the service key was revoked")
        elif key.expires_at is not None and key.expires_at <= now:
            refusal = ServiceKeyExpired("the service key has expired")
        elif principal.session in self.ended_sessions:
            refusal = SessionOver("the session was ended")
        if refusal is not None:
            raise refusal

    def resources_by_network(self, account: ServiceAccountUuid) -> dict[RemoteNetworkId, list[Resource]]:
        """Return what the account may reach, by remote network."""
        grouped: dict[RemoteNetworkId, list[Resource]] = defaultdict(list)
        for resource in self.accounts.get(account, ()):
            grouped[resource.remote_network].append(resource)
        return dict(grouped)


def take(tx: Transaction) -> Snapshot:
    """Return the snapshot of now."""
    now_ms = tx.now_ms
    networks = {row.id for row in tx.remote_networks.find(is_active=True)}
    resources = {
        row.id: to_domain(row)
        for row in tx.resources.find(is_active=True)
        if row.remote_network_id in networks and row.routing_mode != BYPASS
    }
    uuids = {row.id: ServiceAccountUuid(row.uuid) for row in tx.service_accounts.find()}
    expiries: set[float] = set()
    accounts: dict[ServiceAccountUuid, list[Resource]] = defaultdict(list)
    for access in tx.access.find():
        if access.expires_at_ms is not None:
            expiries.add(access.expires_at_ms / 1000)
            if access.expires_at_ms <= now_ms:
                continue
        if access.resource_id in resources:
            accounts[uuids[access.service_account_id]].append(resources[access.resource_id])
    for other in tx.group_access.find():
        if other.expires_at_ms is not None:
            expiries.add(other.expires_at_ms / 1000)
    keys = {}
    for key in tx.service_keys.find():
        expires_at = None if key.expires_at_ms is None else key.expires_at_ms / 1000
        keys[Kid(key.kid)] = KeyFacts(uuids[key.service_account_id], key.revoked_at_ms is not None, expires_at)
        if expires_at is not None and not key.expiry_cut and key.revoked_at_ms is None:
            expiries.add(expires_at)
    connectors: dict[RemoteNetworkId, list[ConnectorRow]] = defaultdict(list)
    for connector in tx.connectors.find():
        connectors[RemoteNetworkId(connector.remote_network_id)].append(connector)
    return Snapshot(
        tx.head(),
        {account: tuple(listed) for account, listed in accounts.items()},
        keys,
        {network: tuple(rows) for network, rows in connectors.items()},
        tuple(row for row in tx.relays.find() if row.address and row.certificate_sha256),
        frozenset(row.id for row in tx.sessions.since("ended_at_ms", now_ms - ENDED_MS)),
        min(expiries, default=None),
    )
