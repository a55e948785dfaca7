"""Who may reach what, in memory, stamped with the revision it was read at: decisions need no SQL (DESIGN §7).

A snapshot holds what sessions attached at the moment need, not the whole inventory (docs/decisions/0006).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from klinket.controller.app import account_limits
from klinket.controller.app.ports import Repository, Transaction
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

#: Ids in one statement.
CHUNK_IDS = 5_000
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What counts of a service key."""

    account: ServiceAccountUuid
    revoked: bool
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Read-only, and only of the sessions it was taken for: `covers` says whether it may be asked.

    `live_sessions`: those of them that have not ended. `known_connectors`: the key
    (thumbprint) that those of the ones asked for have which still exist.
    `next_expiry`: when access or a key ends by itself (seconds since the epoch); a past one is not ended yet.
    """

    stamp: Stamp
    sessions: frozenset[str]
    live_sessions: frozenset[str]
    accounts: Mapping[ServiceAccountUuid, tuple[Resource, ...]]
    keys: Mapping[Kid, KeyFacts]
    connectors: Mapping[RemoteNetworkId, tuple[ConnectorRow, ...]]
    known_connectors: Mapping[int, str | None]
    relays: tuple[RelayRow, ...]
    next_expiry: float | None
    #: A head above this database's own (decision 0014); nothing is granted then.
    proven_head: Stamp | None = None
    #: Ids of all signing keys but those withdrawn; when others are there they are read anew.
    signing_keys: frozenset[str] = frozenset()
    #: What is set for accounts whose limits at connectors are not the defaults.
    own_limits: tuple[tuple[ServiceAccountUuid, Mapping[str, float]], ...] = ()

    def covers(self, principal: Principal) -> bool:
        """Return whether the snapshot was taken for this session among others."""
        return principal.session in self.sessions

    def check(self, principal: Principal, now: float) -> None:
        """Raise what ended this principal's session, if anything did. The snapshot must cover it."""
        assert self.covers(principal), "a snapshot knows nothing of sessions it was not taken for"
        key = self.keys.get(principal.key)
        refusal: AuthenticationFailed | None = None
        if key is None or key.account != principal.account:
            refusal = ServiceKeyUnknown("the service key was deleted")
        elif key.revoked:
            refusal = ServiceKeyRevoked("the service key was revoked")
        elif key.expires_at is not None and key.expires_at <= now:
            refusal = ServiceKeyExpired("the service key has expired")
        elif principal.session not in self.live_sessions:
            refusal = SessionOver("the session was ended")
        if refusal is not None:
            raise refusal

    def resources_by_network(self, account: ServiceAccountUuid) -> dict[RemoteNetworkId, list[Resource]]:
        """Return what the account may reach, by remote network."""
        grouped: dict[RemoteNetworkId, list[Resource]] = defaultdict(list)
        for resource in self.accounts.get(account, ()):
            grouped[resource.remote_network].append(resource)
        return dict(grouped)


def take(tx: Transaction, principals: Collection[Principal] = (), connectors: Collection[int] = ()) -> Snapshot:
    """Return the snapshot of now for these sessions and attached connectors; the statements do not grow with the inventory."""
    uuids = {
        row.id: ServiceAccountUuid(row.uuid) for row in _rows(tx.service_accounts, "uuid", {one.account for one in principals})
    }
    keys = {
        Kid(row.kid): KeyFacts(uuids[row.service_account_id], row.revoked_at_ms is not None, row.expires_at)
        for row in _rows(tx.service_keys, "kid", {one.key for one in principals})
        if row.service_account_id in uuids
    }
    accounts = _accounts(tx, uuids)
    networks = {resource.remote_network for listed in accounts.values() for resource in listed}
    by_network: dict[RemoteNetworkId, list[ConnectorRow]] = defaultdict(list)
    for connector in _rows(tx.connectors, "remote_network_id", networks):
        by_network[RemoteNetworkId(connector.remote_network_id)].append(connector)
    sessions = frozenset(one.session for one in principals)
    return Snapshot(
        tx.head(),
        sessions,
        frozenset(row.id for row in _rows(tx.sessions, "id", sessions) if row.ended_at_ms is None),
        accounts,
        keys,
        {network: tuple(rows) for network, rows in by_network.items()},
        {row.id: row.enrolled_jkt for row in _rows(tx.connectors, "id", connectors)},
        tuple(row for row in tx.relays.find() if row.address and row.certificate_sha256),
        _next_expiry(tx),
        tx.proven_head(),
        frozenset(kid for (kid,) in tx.signing_keys.pick(["kid"])),
        account_limits.at_connectors(tx),
    )


def _accounts(tx: Transaction, uuids: Mapping[int, ServiceAccountUuid]) -> dict[ServiceAccountUuid, tuple[Resource, ...]]:
    """Return what each account may reach now."""
    granted = [
        row for row in _rows(tx.access, "service_account_id", uuids) if row.expires_at_ms is None or row.expires_at_ms > tx.now_ms
    ]
    rows = [row for row in _rows(tx.resources, "id", {one.resource_id for one in granted}) if row.is_active]
    active = {row.id for row in _rows(tx.remote_networks, "id", {row.remote_network_id for row in rows}) if row.is_active}
    resources = {row.id: to_domain(row) for row in rows if row.remote_network_id in active and row.routing_mode != BYPASS}
    accounts: dict[ServiceAccountUuid, list[Resource]] = defaultdict(list)
    for access in granted:
        if access.resource_id in resources:
            accounts[uuids[access.service_account_id]].append(resources[access.resource_id])
    return {account: tuple(listed) for account, listed in accounts.items()}


def _next_expiry(tx: Transaction) -> float | None:
    moments = (
        tx.service_keys.lowest("expires_at_ms", expiry_cut=False),
        tx.access.lowest("expires_at_ms"),
        tx.group_access.lowest("expires_at_ms"),
    )
    known = [moment for moment in moments if moment is not None]
    return min(known) / 1000 if known else None


def _rows(repository: Repository[_R], column: str, values: Iterable[Any]) -> Iterator[_R]:
    """Yield the rows whose column is one of the values, by primary key within each CHUNK_IDS of them."""
    listed = sorted(values)
    for start in range(0, len(listed), CHUNK_IDS):
        yield from repository.find(**{column: listed[start : start + CHUNK_IDS]})
