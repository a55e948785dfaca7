"""One object of every type, made over the API where it can be: what tables and generated requests run into."""

from __future__ import annotations

from itertools import count

from klinket.controller.app import security_policies
from klinket.controller.graphql.global_id import to_global_id
from klinket.domain.audit import SYSTEM
from tests.unit.controller.running import Running

_numbers = count(1)


async def one_of_everything(controller: Running) -> dict[str, str]:
    """Return the ids of new objects by type; they refer to each other, and no name is used twice."""
    number = next(_numbers)
    network = await controller.add_network(f"network {number}")
    resource = await controller.add_resource(network, f"resource {number}", f"host-{number}.internal")
    account = await controller.add_account(f"account {number}", [resource])
    key, _ = await controller.add_key(account)
    user = await _made(controller, f'userCreate(email: "user{number}@example.com")')
    group = await _made(controller, f'groupCreate(name: "group {number}", userIds: ["{user}"], resourceIds: ["{resource}"])')
    policy = await controller.write(lambda tx: security_policies.create(tx, SYSTEM, name=f"policy {number}").id)
    facts = {"name": f"device {number}", "serial_number": f"S{number}", "facts": {"osName": "LINUX"}}
    device = await controller.write(lambda tx: tx.devices.add(is_trusted=False, active_state="ACTIVE", **facts).id)
    await controller.change(f'mutation {{ serialNumbersCreate(serialNumbers: ["S{number}"]) {{ ok error }} }}')
    return {
        "RemoteNetwork": network,
        "Connector": await controller.add_connector(network),
        "Resource": resource,
        "Group": group,
        "User": user,
        "SecurityPolicy": to_global_id("SecurityPolicy", policy),
        "ServiceAccount": account,
        "ServiceAccountKey": key,
        "Device": to_global_id("Device", device),
    }


async def _made(controller: Running, field: str) -> str:
    return str((await controller.change(f"mutation {{ {field} {{ ok error entity {{ id }} }} }}"))["entity"]["id"])
