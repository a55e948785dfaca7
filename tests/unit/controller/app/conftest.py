"""An inventory in a real store: network `office` with connector `office-1`, resource `Database`, account `ci`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from klinket.controller.app import access, connectors, remote_networks, resources, service_accounts, service_keys
from klinket.controller.app.ports import Committed, Transaction
from klinket.controller.app.rows import ConnectorRow, ResourceRow, ServiceAccountRow, ServiceKeyRow
from klinket.controller.database import PostgresAddress
from klinket.controller.store.engine import open_store
from klinket.domain.audit import Actor, ActorType
from klinket.domain.cut import Cut
from klinket.domain.identifiers import Kid

T = TypeVar("T")
ADMIN = Actor(ActorType.API, id="1", name="first token", source="127.0.0.1")


class Inventory:
    """A store with a clock that tests move, and what its listeners heard."""

    def __init__(self, database: Path | PostgresAddress) -> None:
        self.now = 1_800_000_000.0
        self.signed: list[Cut] = []
        self.heard: list[Committed] = []
        self.database_at = database
        self.store = open_store(database, lambda: self.now)
        self.store.use_cut_signer(self._sign)
        self._kids = 0

    def _sign(self, cut: Cut) -> str:
        self.signed.append(cut)
        return f"signed {cut.id}"

    async def write(self, change: Callable[[Transaction], T]) -> T:
        return await self.store.write(change)

    async def read(self, query: Callable[[Transaction], T]) -> T:
        return await self.store.read(query)

    async def fill(self) -> None:
        self.store.on_commit(self.heard.append)

        def first(tx: Transaction) -> None:
            self.office = remote_networks.create(
                tx, ADMIN, name="office", location="ON_PREMISE", network_type="REGULAR", is_active=True
            )
            self.connector = self.add_connector(tx, "office-1")
            self.database = self.add_resource(tx, "Database")
            self.ci = service_accounts.create(tx, ADMIN, name="ci", uuid=str(uuid4()))

        await self.write(first)

    def add_connector(self, tx: Transaction, name: str, version: str | None = None) -> ConnectorRow:
        row = connectors.create(tx, ADMIN, self.office, name=name, has_status_notifications=True)
        if version is not None:
            tx.connectors.change(row.id, enrolled_jkt="jkt")
            report = {"version": version, "hostname": "host", "public_ip": "192.0.2.1", "private_ips": ["10.0.0.5"]}
            connectors.heartbeat(tx, row.id, "jkt", **report)
        return row

    def add_resource(self, tx: Transaction, name: str, **values: Any) -> ResourceRow:
        values = {"address": "db.internal", "remote_network_id": self.office.id, **values}
        return resources.create(tx, ADMIN, name=name, **values)

    def add_key(
        self, tx: Transaction, *, days: int = 0, name: str | None = None, account: ServiceAccountRow | None = None
    ) -> ServiceKeyRow:
        self._kids += 1
        kid = Kid(f"kid-{self._kids}")
        return service_keys.create(tx, ADMIN, account or self.ci, days=days, name=name, kid=kid, public_key="PEM")

    def grant(self, tx: Transaction, resource: ResourceRow | None = None, expires_at_ms: int | None = None) -> None:
        access.grant(tx, ADMIN, resource or self.database, self.ci, expires_at_ms)

    @contextmanager
    def cuts(self) -> Iterator[list[Cut]]:
        """Collect the cuts ordered inside."""
        before = len(self.signed)
        found: list[Cut] = []
        yield found
        found.extend(self.signed[before:])


@pytest.fixture
async def inventory(database: Path | PostgresAddress) -> Any:
    inventory = Inventory(database)
    await inventory.fill()
    yield inventory
    inventory.store.close()
