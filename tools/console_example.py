"""An inventory as a company has it, with a week of traffic: what screenshots show."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Callable, Sequence
from typing import cast

from starlette.websockets import WebSocket

from klinket.controller.app import (
    access,
    api_tokens,
    connectors,
    console_sessions,
    cuts,
    defaults,
    flow_events,
    group_access,
    groups,
    passkeys,
    passwords,
    recovery_codes,
    relays,
    remote_networks,
    resources,
    security_policies,
    service_accounts,
    service_keys,
    sinks,
    totp_secrets,
    users,
)
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ConnectorRow, ResourceRow, ServiceAccountRow, ServiceKeyRow, UserRow
from klinket.controller.console.sign_in.proofs import sealed_as
from klinket.controller.peers import ConnectorPeer, Outbox, Peers
from klinket.domain.account_limits import SeatsExceeded
from klinket.domain.audit import Actor, ActorType
from klinket.domain.identifiers import ConnectorId, Kid, Thumbprint
from klinket.domain.sink import SinkKind
from klinket.wire import signing
from klinket.wire.control import FlowEvent

ACTOR = Actor(ActorType.USER, "1", "ada@example.com", "192.0.2.10")
HOUR_MS = 3_600_000
_NETWORKS = (("production", "AWS"), ("staging", "GOOGLE_CLOUD"), ("office Berlin", "ON_PREMISE"))
_RESOURCES = (
    ("Orders database", "orders-db.prod.internal", 0, 5432),
    ("All of production", "*.prod.internal", 0, 443),
    ("Billing API", "billing.prod.internal", 0, 443),
    ("Metrics", "10.20.4.0/24", 0, 9090),
    ("Artifact store", "artifacts.prod.internal", 0, 443),
    ("Staging cluster", "*.staging.internal", 1, 6443),
    ("Staging database", "10.30.0.15", 1, 5432),
    ("Git server", "git.office.example", 2, 22),
    ("Build cache", "cache.office.example", 2, 6379),
)
_SERVICES = (
    ("deploy-production", (0, 2, 4), 2),
    ("ci-runners", (5, 6, 7, 8), 3),
    ("nightly-backup", (0, 6), 1),
    ("metrics-scraper", (3,), 1),
    ("terraform", (5,), 1),
    ("load-test", (), 0),
)
_PEOPLE = (
    ("Ada", "Lovelace", "ADMIN"),
    ("Grace", "Hopper", "DEVOPS"),
    ("Alan", "Turing", "SUPPORT"),
    ("Edsger", "Dijkstra", "MEMBER"),
)


def fill(tx: Transaction, *, seed: int = 7) -> None:
    """Make networks, connectors, resources, services with keys and access, users, groups, and a week of flow events."""
    defaults.ensure(tx)
    rng = random.Random(seed)  # noqa: S311 - an example
    tx.relays.add(
        name="relay-1",
        token_hash="of relay-1",  # noqa: S106 - an example
        address="relay.example:8443",
        certificate_sha256="00" * 32,
    )
    networks = [
        remote_networks.create(tx, ACTOR, name=name, location=location, network_type="REGULAR", is_active=True)
        for name, location in _NETWORKS
    ]
    made_connectors = [
        connectors.create(tx, ACTOR, networks[network], name=name, has_status_notifications=True)
        for name, network in (("brave-otter", 0), ("calm-falcon", 0), ("quick-heron", 1), ("silent-lynx", 2))
    ]
    for connector in made_connectors[:3]:
        tx.connectors.change(
            connector.id,
            version="1.80.0",
            hostname=f"{connector.name}.example",
            public_ip="198.51.100.7",
            private_ips=["10.20.0.5"],
            last_heartbeat_ms=tx.now_ms,
            clock_offset_ms=12,
            started_ms=tx.now_ms - 9 * 24 * HOUR_MS,
            enrolled_jkt="NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            access_token_hash=f"of {connector.name}",
        )
    made_resources = [_resource(tx, networks[network].id, name, address, port) for name, address, network, port in _RESOURCES]
    accounts: list[tuple[ServiceAccountRow, list[ServiceKeyRow], tuple[int, ...]]] = []
    for name, reached, keys in _SERVICES:
        account = service_accounts.create(tx, ACTOR, name=name, uuid=str(uuid.UUID(int=rng.getrandbits(128), version=4)))
        made = [_key(tx, account, f"{name} {number + 1}", rng.choice((0, 30, 365))) for number in range(keys)]
        for index in reached:
            access.grant(tx, ACTOR, made_resources[index], account)
        accounts.append((account, made, reached))
    service_keys.revoke(tx, ACTOR, accounts[1][1][2])
    _special_keys(tx, accounts[0][0])
    cuts.answer(
        tx, tx.cuts.newest(1)[0].id, made_connectors[2].id, stopped_at_ms=tx.now_ms, took_ms=12.4,
        flows=[{"flow": "1"}, {"flow": "2"}],
    )  # fmt: skip
    wider = {"policy": "RESTRICTED", "ports": [{"start": 80, "end": 80}, {"start": 443, "end": 443}]}
    billing = next(row for row in made_resources if row.name == "Billing API")
    resources.update(
        tx, ACTOR, billing, {"name": "Billing", "protocols": {**billing.protocols, "tcp": wider}, "alias": "billing.internal"}
    )
    _people(tx, made_resources)
    silent = made_connectors[3]
    tx.connectors.change(
        silent.id,
        version="1.0.29",
        hostname="gw.office.example",
        last_heartbeat_ms=tx.now_ms - 3 * HOUR_MS,
        private_ips=["10.40.0.2"],
    )
    _settings(tx)
    events = _week(tx, rng, accounts, made_resources)
    for connector in made_connectors[:3]:
        peers = [other for other in made_connectors[:3] if other.remote_network_id == connector.remote_network_id]
        # Both events of a flow come from the connector that carried it.
        mine = [
            event
            for event, network in events
            if network == connector.remote_network_id and peers[int(event.flow, 16) % len(peers)].id == connector.id
        ]
        for begin in range(0, len(mine), flow_events.MAX_BATCH_EVENTS):
            flow_events.keep(tx, connector.id, begin + 1, mine[begin : begin + flow_events.MAX_BATCH_EVENTS])
    _answer_cuts(tx, rng, accounts, made_resources)


def _answer_cuts(
    tx: Transaction,
    rng: random.Random,
    accounts: list[tuple[ServiceAccountRow, list[ServiceKeyRow], tuple[int, ...]]],
    made: list[ResourceRow],
) -> None:
    """Order a few cuts more; all but the last are answered."""
    for account, _, reached in accounts[:3]:
        spare = _key(tx, account, f"{account.name} old", 30)
        service_keys.revoke(tx, ACTOR, spare)
        access.revoke(tx, ACTOR, made[reached[0]], account)
        access.grant(tx, ACTOR, made[reached[0]], account)
    newest = tx.cuts.newest(1)[0].id
    for receipt in tx.cut_receipts.find():
        if receipt.cut_id == newest:
            continue
        account, keys, reached = rng.choice(accounts[:3])
        flows = [
            {
                "flow": os.urandom(8).hex(), "session": "example", "service_account": account.uuid, "key": keys[0].kid,
                "resource": made[reached[0]].id, "host": made[reached[0]].address, "port": 5432, "protocol": "tcp",
                "stopped_after_ms": round(rng.uniform(0.4, 9), 3),
            }
            for _ in range(rng.randrange(4))
        ]  # fmt: skip
        cuts.answer(
            tx,
            receipt.cut_id,
            receipt.connector_id,
            stopped_at_ms=tx.now_ms + 20,
            took_ms=rng.uniform(1, 14),
            flows=flows,
            token="signed",  # noqa: S106 - a receipt's
        )


def attach(peers: Peers, rows: Sequence[ConnectorRow]) -> None:
    """Let the connectors that have reported just now have a live channel, each at the relay."""
    for row in rows:
        if row.enrolled_jkt is not None:
            socket = cast(WebSocket, None)  # nothing is sent: nobody runs the outbox
            peers.connectors[row.id] = ConnectorPeer(
                ConnectorId(row.id), Thumbprint(row.enrolled_jkt), Outbox(socket), relays=(1,)
            )


def _resource(tx: Transaction, network: int, name: str, address: str, port: int) -> ResourceRow:
    ports = {"policy": "RESTRICTED", "ports": [{"start": port, "end": port}]}
    closed = {"policy": "RESTRICTED", "ports": []}
    return resources.create(
        tx,
        ACTOR,
        remote_network_id=network,
        name=name,
        address=address,
        protocols={"allowIcmp": False, "tcp": ports, "udp": closed},
        tags=[{"key": "owner", "value": "platform" if port == 443 else "data"}],
    )


def _key(tx: Transaction, account: ServiceAccountRow, name: str, days: int) -> ServiceKeyRow:
    pair = signing.generate_private_key()
    kid = Kid(os.urandom(12).hex())
    public = signing.public_key_to_pem(pair.public_key())
    row = service_keys.create(tx, ACTOR, account, days=days, name=name, kid=kid, public_key=public)
    used = {"hostname": "runner-7", "address": "203.0.113.20", "clientVersion": "0.1.0"}
    return tx.service_keys.change(row.id, last_used_ms=tx.now_ms - 4 * 60_000, last_used_by=used)


def _special_keys(tx: Transaction, account: ServiceAccountRow) -> None:
    """Make a key with a seat, one with seats that only warns, and a canary."""
    for name, seats, exceeded in (("one runner", 1, SeatsExceeded.REFUSE), ("two runners", 2, SeatsExceeded.ALERT)):
        tx.service_keys.change(_key(tx, account, name, 365).id, seats=seats, seats_exceeded=exceeded.value)
    canary = _key(tx, account, "old backup", 0)
    tx.service_keys.change(canary.id, is_canary=True, last_used_ms=None, last_used_by=None)


def _settings(tx: Transaction) -> None:
    """Make API tokens, relays and sinks, one of which fails."""
    used = api_tokens.create(tx, ACTOR, name="terraform", scopes=["provision"], entropy=os.urandom, days=90)[0]
    tx.api_tokens.change(used.id, last_used_ms=tx.now_ms - 12 * 60_000)
    office = ["192.0.2.0/24", "2001:db8::/32"]
    api_tokens.create(tx, ACTOR, name="nightly report", scopes=["read"], entropy=os.urandom, days=365, allowed_ranges=office)
    retired = api_tokens.create(tx, ACTOR, name="old pipeline", scopes=["write"], entropy=os.urandom)[0]
    api_tokens.update(tx, ACTOR, retired, is_enabled=False)
    for name, port in (("frankfurt-1", 8444), ("dublin-1", 8444)):
        relay = relays.create(tx, ACTOR, name=name, entropy=os.urandom)[0]
        address, pin = f"{name}.relay.example.com:{port}", os.urandom(32).hex()
        tx.relays.change(relay.id, address=address, certificate_sha256=pin)
    relays.create(tx, ACTOR, name="singapore-1", entropy=os.urandom)
    siem = sinks.create(
        tx, ACTOR, name="SIEM", kind=SinkKind.WEBHOOK, settings={"url": "https://siem.example.com/events"},
        streams=["audit", "network"], sealed_secret=b"sealed",
    )  # fmt: skip
    tx.sinks.change(siem.id, last_delivered_ms=tx.now_ms - 4_000)
    mail = sinks.create(
        tx, ACTOR, name="On call", kind=SinkKind.SMTP, streams=["warnings"], sealed_secret=b"sealed",
        settings={
            "address": "mail.example.com:587", "sender": "klinket@example.com", "user": "klinket",
            "recipients": ["on-call@example.com", "platform@example.com"],
        },
    )  # fmt: skip
    refused = "mail.example.com:587 refused the login: 535 5.7.8 authentication failed"
    tx.sinks.change(mail.id, attempts=4, last_error=refused, next_try_ms=tx.now_ms + 8_000)


def _people(tx: Transaction, reached: list[ResourceRow]) -> None:
    for first, last, role in _PEOPLE:
        made = users.create(tx, ACTOR, email=f"{first.lower()}@example.com", first_name=first, last_name=last, role=role)
        if first in ("Grace", "Alan"):
            tx.users.change(made.id, state=users.ACTIVE)
    strict = security_policies.create(tx, ACTOR, name="Production")
    team = groups.create(tx, ACTOR, name="Platform", security_policy_id=None)
    oncall = groups.create(tx, ACTOR, name="On call", security_policy_id=strict.id)
    synced = groups.create(tx, ACTOR, name="Engineering", security_policy_id=None)
    groups.set_members(tx, ACTOR, team, {row.id for row in tx.users.find()})
    groups.set_members(tx, ACTOR, oncall, {row.id for row in tx.users.find(email=["grace@example.com", "ada@example.com"])})
    tx.groups.change(synced.id, group_type=groups.SYNCED, origin_id="engineering")
    for resource in reached[:4]:
        group_access.grant(tx, ACTOR, resource, team)
    tx.resources.change(reached[0].id, security_policy_id=strict.id)


def _week(
    tx: Transaction,
    rng: random.Random,
    accounts: list[tuple[ServiceAccountRow, list[ServiceKeyRow], tuple[int, ...]]],
    made: list[ResourceRow],
) -> list[tuple[FlowEvent, int]]:
    events: list[tuple[FlowEvent, int]] = []
    for hour in range(7 * 24, -1, -1):
        for account, keys, reached in accounts:
            for _ in range(rng.randrange(4) if reached else 0):
                resource = made[rng.choice(reached)]
                time_ms = tx.now_ms - hour * HOUR_MS + rng.randrange(HOUR_MS // 2)
                time_ms = min(time_ms, tx.now_ms - rng.randrange(60_000))
                port = resource.protocols["tcp"]["ports"][0]["start"]
                host = resource.address.replace("*", "web").split("/")[0]
                facts = {
                    "flow": os.urandom(8).hex(), "session": "example", "service_account": account.uuid, "key": keys[0].kid,
                    "resource": resource.id, "host": host, "port": port, "protocol": "tcp", "resource_ip": "10.20.0.9",
                }  # fmt: skip
                word = rng.random()
                if word < 0.06:
                    facts |= {"event": "denied", "failure": "not-granted", "resource": None}
                elif word < 0.1:
                    facts |= {"event": "failed", "failure": rng.choice(("refused", "timed-out", "name-not-found"))}
                else:
                    facts["event"] = "established"
                events.append((FlowEvent(time_ms=time_ms, **facts), resource.remote_network_id))
                if facts["event"] == "established" and (hour or rng.random() < 0.5):
                    took = rng.randrange(200, 240_000)
                    sent, received = rng.randrange(2_000_000), rng.randrange(80_000_000)
                    ended = {
                        **facts,
                        "event": "closed",
                        "duration_ms": took,
                        "bytes_from_client": sent,
                        "bytes_to_client": received,
                    }
                    events.append((FlowEvent(time_ms=min(time_ms + took, tx.now_ms), **ended), resource.remote_network_id))
    return sorted(events, key=lambda event: event[0].time_ms)


def add_credentials(tx: Transaction, user: UserRow, seal: Callable[[bytes, str], bytes]) -> None:
    """Give a user an authenticator app, a passkey, recovery codes and a second session."""
    passwords.put(tx, ACTOR, user, "$argon2id$of-nobody")
    offered = totp_secrets.offer(tx, user.id, seal(os.urandom(totp_secrets.SECRET_BYTES), sealed_as(user.id)))
    totp_secrets.confirm(tx, ACTOR, user, offered.id, 1)
    values = {"credential_id": "AAAA", "public_key": b"k", "sign_count": 4, "transports": ["internal"]}
    key = passkeys.add(tx, ACTOR, user, name="Work laptop", **values)  # type: ignore[arg-type]
    tx.passkeys.change(key.id, last_used_ms=tx.now_ms - 3 * HOUR_MS)
    recovery_codes.replace(tx, ACTOR, user, os.urandom)
    phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 Version/19.1 Mobile/15E148 Safari/604.1"
    begin = console_sessions.begin
    row, _ = begin(tx, user, Stage.FULL, address="198.51.100.20", user_agent=phone, entropy=os.urandom)
    tx.console_sessions.change(row.id, last_seen_ms=tx.now_ms - HOUR_MS // 4)
