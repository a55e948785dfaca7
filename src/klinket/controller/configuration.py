"""The full configuration of a client and of a connector, signed for now (docs/reference/control.md)."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence

from klinket.controller.app.rows import ConnectorRow, RelayRow
from klinket.controller.app.snapshot import Snapshot
from klinket.controller.authority import AuthorityPurpose
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain import account_limits
from klinket.domain.cut import Stamp
from klinket.domain.grant import Principal
from klinket.domain.identifiers import RemoteNetworkId, ServiceAccountUuid, Thumbprint
from klinket.domain.resource import Resource, ResourceIndex, choose
from klinket.net.uptime import boot, own_time, told_uptime_ms
from klinket.wire import ticket
from klinket.wire.control import (
    AccountLimits,
    ClientConfiguration,
    ConnectorConfiguration,
    LimitsOfAccount,
)
from klinket.wire.grant_token import MAX_LIFETIME_SECONDS, sign_grant
from klinket.wire.head_token import sign_head
from klinket.wire.inventory import ConnectorEntry, Grant, RelayEntry, RelayTicket, entry_of
from klinket.wire.ticket import TicketRole

#: Random bytes of a ticket's id.
TICKET_ID_BYTES = 12
#: Seconds a relay ticket lives; renewed with every configuration.
TICKET_SECONDS = 3600.0


def for_client(
    snapshot: Snapshot,
    trust: Trust,
    principal: Principal,
    jkt: Thumbprint,
    attached: Mapping[int, Sequence[int]],
    direct: Mapping[int, Sequence[str]],
    punching: Collection[int],
    *,
    now: float,
    confirmed_at: float,
    grant_seconds: int,
    only: Sequence[str] = (),
    spread_ms: int = 0,
) -> ClientConfiguration:
    """Return what a session may do now. `attached`: connectors online, and the relays each is at; `direct`: where they listen;
    `punching`: those that take part in hole punching.

    `only`: what grants are for, () for all. The session is told of the others as well: nothing of them may go past it.

    Grants end with the service key at the latest, and `grant_seconds` after the store has confirmed the snapshot: from then on
    another controller may have revoked what this one does not hear of.
    """
    expires_at = min(now, confirmed_at) + grant_seconds
    key = snapshot.keys.get(principal.key)
    if key is not None and key.expires_at is not None:
        expires_at = min(expires_at, max(now + 1, key.expires_at))
    grouped = snapshot.resources_by_network(principal.account)
    connectors = [
        ConnectorEntry(
            id=row.id,
            name=row.name,
            remote_network=row.remote_network_id,
            relays=list(attached.get(row.id, ())),
            online=row.id in attached,
            jkt=row.enrolled_jkt or "",
            direct=list(direct.get(row.id, ())),
            punches=row.id in punching,
        )
        for network in grouped
        for row in snapshot.connectors.get(network, ())
    ]
    return ClientConfiguration(
        epoch=snapshot.stamp[0],
        revision=snapshot.stamp[1],
        network=trust.network,
        session=principal.session,
        time_ms=round(now * 1000),
        connector_authority=trust.authorities[AuthorityPurpose.CONNECTOR].certificate_pem,
        resources=[entry_of(resource) for listed in grouped.values() for resource in listed],
        connectors=connectors,
        relays=[_relay(row) for row in snapshot.relays],
        tickets=_tickets(
            snapshot.relays, trust, TicketRole.CLIENT, principal.session, [one.id for one in connectors], now, principal.account
        ),
        grants=[
            _grant(snapshot, trust, principal, jkt, network, listed, now, expires_at)
            for network, listed in _narrowed(grouped, only).items()
        ],
        renew_at_ms=round((now + (expires_at - now) / 2) * 1000),
        valid_until_ms=round(expires_at * 1000),
        spread_ms=spread_ms,
    )


def _narrowed(
    grouped: Mapping[RemoteNetworkId, Sequence[Resource]], only: Sequence[str]
) -> Mapping[RemoteNetworkId, Sequence[Resource]]:
    if not only:
        return grouped
    chosen = choose(ResourceIndex(one for listed in grouped.values() for one in listed), only)
    narrowed = {network: [one for one in listed if one.id in chosen] for network, listed in grouped.items()}
    return {network: listed for network, listed in narrowed.items() if listed}


def _grant(
    snapshot: Snapshot,
    trust: Trust,
    principal: Principal,
    jkt: Thumbprint,
    network: RemoteNetworkId,
    resources: Sequence[Resource],
    now: float,
    expires_at: float,
) -> Grant:
    token = sign_grant(
        trust.signers[KeyPurpose.GRANT],
        network=trust.network,
        remote_network=network,
        principal=principal,
        jkt=jkt,
        stamp=snapshot.stamp,
        resources=resources,
        now=now,
        lifetime=expires_at - now,
    )
    return Grant(remote_network=network, token=token, expires_at_ms=int(expires_at) * 1000)


def for_connector(
    relays: Sequence[RelayRow],
    trust: Trust,
    connector: ConnectorRow,
    cuts: Sequence[str],
    stamp: Stamp,
    *,
    now: float,
    grant_seconds: int,
    limits: account_limits.AccountLimits = account_limits.DEFAULTS,
    own_limits: Sequence[tuple[ServiceAccountUuid, Mapping[str, float]]] = (),
) -> ConnectorConfiguration:
    """Return what a connector works with. `cuts`: signed cuts that may still have to be applied; `stamp`: read with them.

    `limits`: of every account for which nothing else is set; `own_limits`: what is set, by account.
    """
    return ConnectorConfiguration(
        epoch=stamp[0],
        revision=stamp[1],
        network=trust.network,
        connector=connector.id,
        remote_network=connector.remote_network_id,
        time_ms=round(now * 1000),
        uptime_ms=told_uptime_ms(own_time()),
        boot=boot(),
        client_authority=trust.authorities[AuthorityPurpose.CLIENT].certificate_pem,
        grant_keys=trust.keys[KeyPurpose.GRANT].to_jwks(),
        cut_keys=trust.keys[KeyPurpose.CUT].to_jwks(),
        relays=[_relay(row) for row in relays],
        tickets=_tickets(relays, trust, TicketRole.CONNECTOR, f"connector:{connector.id}", [connector.id], now),
        cuts=list(cuts),
        limits=_at_connectors(limits),
        own_limits=[
            LimitsOfAccount(service_account=account, limits=_at_connectors(account_limits.limits_of(own, limits)))
            for account, own in own_limits
        ],
        max_grant_seconds=MAX_LIFETIME_SECONDS,
        head=sign_head(trust.signers[KeyPurpose.HEAD], stamp, network=trust.network, now=now),
        renew_at_ms=round((now + min(TICKET_SECONDS, 4 * grant_seconds) / 2) * 1000),
    )


def _at_connectors(limits: account_limits.AccountLimits) -> AccountLimits:
    return AccountLimits(
        new_flows_per_second=limits.new_flows_per_second,
        new_flows_burst=limits.new_flows_burst,
        max_flows=limits.max_flows,
        bytes_per_second=limits.bytes_per_second or 0,
    )


def _relay(row: RelayRow) -> RelayEntry:
    return RelayEntry(id=row.id, address=row.address or "", certificate_sha256=row.certificate_sha256 or "")


def _tickets(
    relays: Sequence[RelayRow],
    trust: Trust,
    role: TicketRole,
    holder: str,
    connectors: Sequence[int],
    now: float,
    account: str = "",
) -> list[RelayTicket]:
    return [
        RelayTicket(
            relay=row.id,
            token=ticket.sign_ticket(
                trust.signers[KeyPurpose.TICKET],
                network=trust.network,
                role=role,
                holder=holder,
                relay=row.id,
                connectors=connectors[: ticket.MAX_CONNECTORS],
                now=now,
                lifetime=TICKET_SECONDS,
                id=secrets.token_urlsafe(TICKET_ID_BYTES),
                account=account,
            ),
            expires_at_ms=round((now + TICKET_SECONDS) * 1000),
        )
        for row in relays
    ]
