"""An inventory as a company has it, with a week of traffic: what screenshots show."""

from __future__ import annotations

import os
import random
import uuid

from klinket.controller.app import (
    access,
    connectors,
    flow_events,
    group_access,
    groups,
    remote_networks,
    resources,
    service_accounts,
    service_keys,
    users,
)
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ResourceRow, ServiceAccountRow, ServiceKeyRow
from klinket.domain.audit import Actor, ActorType
from klinket.domain.identifiers import Kid
from klinket.wire import signing
from klinket.wire.control import FlowEvent

ACTOR = Actor(ActorType.USER, "1", "ada@example.com", "192.0.2.10")
HOUR_MS = 3_600_000
_NETWORKS = (("production", "AWS"), ("staging", "GOOGLE_CLOUD"), ("office Berlin", "ON_PREMISE"))
_RESOURCES = (
    ("Orders database", "orders-db.prod.internal", 0, 5432),
    ("Billing API", "billing.prod.internal", 0, 443),
    ("Metrics", "10.20.4.0/24", 0, 9090),
    ("Artifact store", "artifacts.prod.internal", 0, 443),
    ("Staging cluster", "*.staging.internal", 1, 6443),
    ("Staging database", "10.30.0.15", 1, 5432),
    ("Git server", "git.office.example", 2, 22),
    ("Build cache", "cache.office.example", 2, 6379),
)
_SERVICES = (
    ("deploy-production", (0, 1, 3), 2),
    ("ci-runners", (4, 5, 6, 7), 3),
    ("nightly-backup", (0, 5), 1),
    ("metrics-scraper", (2,), 1),
    ("terraform", (4,), 1),
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
    rng = random.Random(seed)  # noqa: S311 - an example
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
    _people(tx, made_resources)
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
    )


def _key(tx: Transaction, account: ServiceAccountRow, name: str, days: int) -> ServiceKeyRow:
    pair = signing.generate_private_key()
    kid = Kid(os.urandom(12).hex())
    public = signing.public_key_to_pem(pair.public_key())
    row = service_keys.create(tx, ACTOR, account, days=days, name=name, kid=kid, public_key=public)
    used = {"hostname": "runner-7", "address": "203.0.113.20", "version": "0.1.0"}
    return tx.service_keys.change(row.id, last_used_ms=tx.now_ms - 4 * 60_000, last_used_by=used)


def _people(tx: Transaction, reached: list[ResourceRow]) -> None:
    for first, last, role in _PEOPLE:
        users.create(tx, ACTOR, email=f"{first.lower()}@example.com", first_name=first, last_name=last, role=role)
    team = groups.create(tx, ACTOR, name="Platform", security_policy_id=None)
    group_access.grant(tx, ACTOR, reached[0], team)


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
                events.append((FlowEvent(time_ms=time_ms, **facts), resource.remote_network_id))  # type: ignore[arg-type]
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
                    events.append(
                        (FlowEvent(time_ms=min(time_ms + took, tx.now_ms), **ended), resource.remote_network_id)  # type: ignore[arg-type]
                    )
    return sorted(events, key=lambda event: event[0].time_ms)
