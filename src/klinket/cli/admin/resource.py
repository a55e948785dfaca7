"""`klinket admin resource`: addresses with their ports behind connectors."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, find
from klinket.cli.admin.network import find_network
from klinket.cli.admin.output import show_object, show_rows, told
from klinket.domain.address import ResourceAddress
from klinket.domain.errors import InvalidInput
from klinket.domain.ports import PortRange

PROTOCOL = "policy ports { start end }"
SELECTION = (
    "id name isActive isVisible alias address { type value } remoteNetwork { id name }"
    f" protocols {{ allowIcmp tcp {{ {PROTOCOL} }} udp {{ {PROTOCOL} }} }}"
)
PORTS_HELP = "Ports: `443`, `80,8000-8999`, `all` or `none`."


@click.group()
def resource() -> None:
    """Resources: an address and its ports in a remote network."""


def find_resource(api: AdminApiClient, wanted: str) -> dict[str, Any]:
    """Return the resource with this name or id, as the API gives it; raises Missing."""
    return find(api.nodes("resources", SELECTION), "Resource", wanted)


def parse_ports(option: str, text: str) -> dict[str, Any]:
    """Return a ProtocolInput for `all`, `none` or a list of ports; raises InvalidInput naming the option."""
    if text == "all":
        return {"policy": "ALLOW_ALL", "ports": []}
    if text == "none":
        return {"policy": "RESTRICTED", "ports": []}
    try:
        spans = [PortRange.parse(part) for part in text.split(",")]
    except InvalidInput as error:
        raise InvalidInput(f"--{option}", error.message, hint=error.hint or PORTS_HELP) from error
    return {"policy": "RESTRICTED", "ports": [{"start": span.first, "end": span.last} for span in spans]}


def checked_address(text: str) -> str:
    """Return the address as it was given; raises InvalidInput naming the option."""
    try:
        ResourceAddress.parse(text)
    except InvalidInput as error:
        raise InvalidInput("--address", error.message, hint=error.hint) from error
    return text


def protocols_of(tcp: str | None, udp: str | None, icmp: bool | None) -> dict[str, Any] | None:
    """Return a ProtocolsInput, or None when nothing was said (everything allowed). What is not named is then closed."""
    if tcp is None and udp is None and icmp is None:
        return None
    return {
        "tcp": parse_ports("tcp", tcp or "none"),
        "udp": parse_ports("udp", udp or "none"),
        "allowIcmp": bool(icmp),
    }


def _ports(rule: dict[str, Any]) -> str:
    if rule["policy"] == "ALLOW_ALL":
        return "all"
    spans = [str(span["start"]) if span["start"] == span["end"] else f"{span['start']}-{span['end']}" for span in rule["ports"]]
    return ",".join(spans) or "none"


def row_of(node: dict[str, Any]) -> dict[str, Any]:
    """Return the flat row that tables and `--json` show."""
    return {
        "id": node["id"],
        "name": node["name"],
        "address": node["address"]["value"],
        "alias": node["alias"],
        "network": node["remoteNetwork"]["name"],
        "tcp": _ports(node["protocols"]["tcp"]),
        "udp": _ports(node["protocols"]["udp"]),
        "icmp": node["protocols"]["allowIcmp"],
        "active": node["isActive"],
    }


@resource.command()
@click.argument("name")
@click.option("--network", required=True, metavar="NETWORK", help="Remote network, by name or id.")
@click.option("--address", required=True, metavar="ADDRESS", help="IP, CIDR, name, or name with * and ?.")
@click.option("--alias", metavar="NAME", help="A second name, known to clients only.")
@click.option("--tcp", metavar="PORTS", help=PORTS_HELP)
@click.option("--udp", metavar="PORTS", help=PORTS_HELP)
@click.option("--icmp/--no-icmp", default=None, help="Allow echo requests.")
@with_api
def create(
    api: AdminApiClient,
    name: str,
    network: str,
    address: str,
    alias: str | None,
    tcp: str | None,
    udp: str | None,
    icmp: bool | None,
    as_json: bool,
) -> None:
    """Create a resource.

    Without --tcp, --udp and --icmp everything is allowed; with any of them, only what is named.

    \b
    example: klinket admin resource create --network office --address db.internal --tcp 5432 "Orders database"
    """
    payload = api.change(
        "resourceCreate",
        "mutation($name: String!, $address: String!, $network: ID!, $alias: String, $protocols: ProtocolsInput)"
        " { resourceCreate(name: $name, address: $address, remoteNetworkId: $network, alias: $alias,"
        " protocols: $protocols) { ok error entity { id name } } }",
        name=name,
        address=checked_address(address),
        network=find_network(api, network)["id"],
        alias=alias,
        protocols=protocols_of(tcp, udp, icmp),
    )
    told(f"created resource {name}", payload["entity"], as_json=as_json)


@resource.command("list")
@with_api
def list_resources(api: AdminApiClient, as_json: bool) -> None:
    """List resources."""
    rows = [row_of(node) for node in api.nodes("resources", SELECTION)]
    columns = {
        "NAME": "name", "ADDRESS": "address", "ALIAS": "alias", "NETWORK": "network",
        "TCP": "tcp", "UDP": "udp", "ACTIVE": "active", "ID": "id",
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, empty="no resource yet: klinket admin resource create --help")


@resource.command()
@click.argument("name")
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one resource, by name or id, with who may use it."""
    node = find_resource(api, name)
    document = (
        "query($id: ID!) { resource(id: $id) { access { edges { expiresAt node"
        " { __typename ... on ServiceAccount { id name } ... on Group { id name } } } } } }"
    )
    edges = api.execute(document, id=node["id"])["resource"]["access"]["edges"]
    access = [{**edge["node"], "expiresAt": edge["expiresAt"]} for edge in edges]
    show_object({**row_of(node), "access": access if as_json else [row["name"] for row in access]}, as_json=as_json)


@resource.command()
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="A new name.")
@click.option("--address", metavar="ADDRESS", help="A new address.")
@click.option("--alias", metavar="NAME", help="A new alias; an empty text removes it.")
@click.option("--tcp", metavar="PORTS", help=PORTS_HELP)
@click.option("--udp", metavar="PORTS", help=PORTS_HELP)
@click.option("--icmp/--no-icmp", default=None, help="Allow echo requests.")
@with_api
def update(
    api: AdminApiClient,
    name: str,
    new_name: str | None,
    address: str | None,
    alias: str | None,
    tcp: str | None,
    udp: str | None,
    icmp: bool | None,
    as_json: bool,
) -> None:
    """Change a resource; flows that are no longer allowed end at once.

    \b
    example: klinket admin resource update "Orders database" --tcp 5432,5433
    """
    node = find_resource(api, name)
    changes: dict[str, Any] = {}
    if new_name is not None:
        changes["name"] = new_name
    if address is not None:
        changes["address"] = address
    if alias is not None:
        changes["alias"] = alias or None
    if tcp is not None or udp is not None or icmp is not None:
        current = row_of(node)
        icmp = current["icmp"] if icmp is None else icmp
        changes["protocols"] = protocols_of(tcp or current["tcp"], udp or current["udp"], icmp)
    if not changes:
        raise InvalidInput("options", "nothing to change", hint="see klinket admin resource update --help")
    types = {"name": "String", "address": "String", "alias": "String", "protocols": "ProtocolsInput"}
    declared = "".join(f", ${key}: {types[key]}" for key in changes)
    passed = "".join(f", {key}: ${key}" for key in changes)
    document = f"mutation($id: ID!{declared}) {{ resourceUpdate(id: $id{passed}) {{ ok error entity {{ id name }} }} }}"
    payload = api.change("resourceUpdate", document, id=node["id"], **changes)
    told(f"changed resource {name}", payload["entity"], as_json=as_json)


def _set_active(api: AdminApiClient, name: str, active: bool) -> None:
    api.change(
        "resourceUpdate",
        "mutation($id: ID!, $active: Boolean) { resourceUpdate(id: $id, isActive: $active) { ok error } }",
        id=find_resource(api, name)["id"],
        active=active,
    )


@resource.command()
@click.argument("name")
@with_api
def enable(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Make a disabled resource accessible again."""
    _set_active(api, name, True)
    told(f"enabled resource {name}", as_json=as_json)


@resource.command()
@click.argument("name")
@with_api
def disable(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Keep the resource but let nobody use it; its flows end at once."""
    _set_active(api, name, False)
    told(f"disabled resource {name}", as_json=as_json)


@resource.command()
@click.argument("name")
@with_api
def delete(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Delete a resource; its flows end at once."""
    api.change(
        "resourceDelete",
        "mutation($id: ID!) { resourceDelete(id: $id) { ok error } }",
        id=find_resource(api, name)["id"],
    )
    told(f"deleted resource {name}", as_json=as_json)
