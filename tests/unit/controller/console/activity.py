"""Flows, cuts and audit events for tests of Activity, made as connectors and admins make them."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import connectors as app_connectors
from klinket.controller.app import flow_events, remote_networks, resources, service_accounts, service_keys
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ResourceRow, ServiceAccountRow, ServiceKeyRow
from klinket.domain.audit import Actor, ActorType
from klinket.domain.identifiers import Kid
from klinket.wire import signing
from klinket.wire.control import FlowEvent

ACTOR = Actor(ActorType.USER, "1", "ada@example.com", "192.0.2.10")


class Inventory:
    """A network with a connector, resources and services with a key each."""

    def __init__(self, tx: Transaction) -> None:
        self._batch = 0
        network = remote_networks.create(tx, ACTOR, name="office", location="AWS", network_type="REGULAR", is_active=True)
        self.connector = app_connectors.create(tx, ACTOR, network, name="brave-otter", has_status_notifications=True)
        self.resources: list[ResourceRow] = [
            resources.create(tx, ACTOR, remote_network_id=network.id, name=name, address=address)
            for name, address in (("Orders", "orders.internal"), ("Billing", "billing.internal"))
        ]
        self.accounts: list[ServiceAccountRow] = []
        self.keys: list[ServiceKeyRow] = []
        for number, name in enumerate(("ci-runners", "ci-deploy", "backup")):
            account = service_accounts.create(tx, ACTOR, name=name, uuid=f"00000000-0000-4000-8000-{number:012d}")
            pem = signing.public_key_to_pem(signing.generate_private_key().public_key())
            self.accounts.append(account)
            self.keys.append(
                service_keys.create(tx, ACTOR, account, days=30, name=f"{name} key", kid=Kid(f"kid-{name}"), public_key=pem)
            )

    def event(self, kind: str, flow: str, service: int = 0, resource: int | None = 0, **more: Any) -> FlowEvent:
        """Return an event of a flow of a service to a resource."""
        row = None if resource is None else self.resources[resource]
        values = {
            "time_ms": 0, "session": "s", "service_account": self.accounts[service].uuid, "key": self.keys[service].kid,
            "resource": None if row is None else row.id, "host": row.address if row else "secret.internal", "port": 443,
            "protocol": "tcp", "resource_ip": "10.0.0.9", **more,
        }  # fmt: skip
        return FlowEvent(event=kind, flow=flow, **values)

    def keep(self, tx: Transaction, *events: FlowEvent) -> None:
        """Store events as the connector's next batch."""
        self._batch += 1
        flow_events.keep(tx, self.connector.id, self._batch, events)
