"""The network that every simulation begins with: made once, and copied."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from klinket.controller import sealing
from klinket.controller.app import access, connectors, relays, remote_networks, resources, service_accounts, service_keys
from klinket.controller.app.ports import Transaction
from klinket.controller.sealing import MasterKey
from klinket.domain.audit import SYSTEM
from klinket.domain.flow import Destination, TransportProtocol
from klinket.domain.identifiers import Kid, ServiceAccountUuid
from klinket.wire import signing
from tests.simulation.client import ServiceKey
from tests.simulation.controller import Controller
from tests.simulation.network import Network
from tests.simulation.virtual_time import EPOCH, virtual_time

RELAYS = ("relay-1", "relay-2")
#: Remote network of each connector.
CONNECTORS = {"office-1": "office", "office-2": "office", "lab-1": "lab"}
ACCOUNTS = ("ci", "deploy")
#: Service account of each key.
KEYS = {"ci-1": "ci", "ci-2": "ci", "deploy-1": "deploy"}
_TCP = TransportProtocol.TCP
#: Resources: remote network, address, ports, and who is granted it at first.
RESOURCES = {
    "database": ("office", "db.internal", (5432, 5433), ("ci", "deploy")),
    "web": ("office", "*.web.internal", (80, 443), ("ci",)),
    "builds": ("lab", "10.1.0.0/24", (22, 8080), ("ci",)),
    "vault": ("lab", "vault.lab.internal", (8200, 8200), ("deploy",)),
}
#: What programs ask for: some of it is granted to some of them, some of it to nobody.
DESTINATIONS = (
    Destination("db.internal", 5432, _TCP),
    Destination("db.internal", 5433, _TCP),
    Destination("shop.web.internal", 443, _TCP),
    Destination("10.1.0.7", 22, _TCP),
    Destination("10.1.0.7", 8080, _TCP),
    Destination("vault.lab.internal", 8200, _TCP),
    Destination("vault.lab.internal", 22, _TCP),
)


@dataclass(frozen=True)
class Template:
    """`database`: bytes of its file. Everything else by name."""

    database: bytes
    master: MasterKey
    relays: dict[str, int]
    connectors: dict[str, int]
    tokens: dict[str, tuple[str, str]]
    keys: dict[str, ServiceKey]
    resources: dict[str, int]


@cache
def template() -> Template:
    """Return the network, the same in this whole process."""
    with tempfile.TemporaryDirectory() as folder, virtual_time() as loop:
        random = Random(1)
        master = sealing.load_or_make(Path(folder) / "master.key")
        network = Network(random, loop.time)
        path = Path(folder) / "klinket.db"
        controller = Controller(path, master, network, lambda: EPOCH + loop.time(), random.randbytes, lambda: 0.0)

        async def make() -> Template:
            await controller.start()
            made = await controller.store.write(lambda tx: _inventory(tx, random))
            await controller.kill()
            return made(path.read_bytes(), master)

        return loop.run_until_complete(make())


def _inventory(tx: Transaction, random: Random):  # type: ignore[no-untyped-def]
    relay_ids, connector_ids, tokens, keys, resource_ids = {}, {}, {}, {}, {}
    for number, name in enumerate(RELAYS, 1):
        row, _ = relays.create(tx, SYSTEM, name=name, entropy=random.randbytes)
        relays.report(tx, row.id, row.token_hash, address=f"192.0.2.{number}:8444", certificate_sha256="00" * 32, source="")
        relay_ids[name] = row.id
    networks = {
        name: remote_networks.create(tx, SYSTEM, name=name, location="OTHER", network_type="REGULAR", is_active=True)
        for name in ("office", "lab")
    }
    for name, network in CONNECTORS.items():
        connector = connectors.create(tx, SYSTEM, networks[network], name=name, has_status_notifications=False)
        connector_ids[name] = connector.id
        tokens[name] = connectors.issue_tokens(tx, SYSTEM, connector, random.randbytes)
    accounts = {
        name: service_accounts.create(tx, SYSTEM, name=name, uuid=f"00000000-0000-4000-8000-00000000000{number}")
        for number, name in enumerate(ACCOUNTS)
    }
    for name, account in KEYS.items():
        private, kid = signing.generate_private_key(), Kid(name)
        public = signing.public_key_to_pem(private.public_key())
        service_keys.create(tx, SYSTEM, accounts[account], days=0, name=name, kid=kid, public_key=public)
        keys[name] = ServiceKey(ServiceAccountUuid(accounts[account].uuid), kid, private)
    for name, (network, address, (first, last), granted) in RESOURCES.items():
        made = resources.create(
            tx, SYSTEM, name=name, address=address, remote_network_id=networks[network].id, protocols=ports(first, last)
        )
        resource_ids[name] = made.id
        for account in granted:
            access.grant(tx, SYSTEM, made, accounts[account])
    return lambda database, master: Template(database, master, relay_ids, connector_ids, tokens, keys, resource_ids)


def ports(first: int, last: int) -> dict[str, object]:
    """Return protocols that open TCP ports, as the Admin API is given them."""
    return {
        "allowIcmp": False,
        "tcp": {"policy": "RESTRICTED", "ports": [{"start": first, "end": last}]},
        "udp": {"policy": "RESTRICTED", "ports": []},
    }
