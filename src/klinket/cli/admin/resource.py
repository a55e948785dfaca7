"""`klinket admin resource`: addresses with their ports behind connectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, Argument
from klinket.cli.admin.named import NETWORK, POLICY, RESOURCE
from klinket.cli.admin.output import show_object, show_rows, told
from klinket.cli.admin.params import ACCESS_POLICY, ADDRESS, ALIAS, NAME, TAG
from klinket.cli.admin.resource_access import access_of, grant, ungrant
from klinket.cli.admin.waiting import Waiting, with_wait
from klinket.domain.errors import InvalidInput
from klinket.domain.ports import PortRange

PROTOCOL = "policy ports { start end }"
SELECTION = (
    "id name isActive isVisible isBrowserShortcutEnabled alias address { type value } remoteNetwork { id name }"
    " tags { key value } securityPolicy { name } approvalMode accessPolicy { mode durationSeconds }"
    " ... on NetworkResource { routingMode }"
    f" protocols {{ allowIcmp tcp {{ {PROTOCOL} }} udp {{ {PROTOCOL} }} }}"
)
PORTS_HELP = "Ports: `443`, `80,8000-8999`, `all` or `none`."


@click.group()
def resource() -> None:
    """Resources: an address and its ports in a remote network.

    \b
    example: klinket admin resource create --network office --address db.internal --tcp 5432 "Orders database"
    """


resource.add_command(grant)
resource.add_command(ungrant)


def parse_ports(option: str, text: str) -> dict[str, Any]:
    """Return a ProtocolInput for `all`, `none` or a list of ports; raises InvalidInput naming the option."""
    if text == "all":
        return {"policy": "ALLOW_ALL", "ports": []}
    if text == "none":
        return {"policy": "RESTRICTED", "ports": []}
    try:
        parts = text.split(",")
        if "" in (part.strip() for part in parts):
            raise InvalidInput("ports", f"empty part in {text[:40]!r}" if text.strip() else "empty: no ports are `none`")
        spans = list(dict.fromkeys(PortRange.parse(part) for part in parts))
    except InvalidInput as error:
        raise InvalidInput(f"--{option}", error.message, hint=error.hint or PORTS_HELP) from error
    return {"policy": "RESTRICTED", "ports": [{"start": span.first, "end": span.last} for span in spans]}


def protocols_of(tcp: str | None, udp: str | None, icmp: bool | None) -> dict[str, Any] | None:
    """Return a ProtocolsInput, or None when nothing was said (everything allowed). What is not named is then closed."""
    if tcp is None and udp is None and icmp is None:
        return None
    return {
        "tcp": parse_ports("tcp", "none" if tcp is None else tcp),
        "udp": parse_ports("udp", "none" if udp is None else udp),
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
        "visible": node["isVisible"],
        "browserShortcut": node["isBrowserShortcutEnabled"],
        "tags": {tag["key"]: tag["value"] for tag in node["tags"]},
        "policy": node["securityPolicy"] and node["securityPolicy"]["name"],
        "approval": node["approvalMode"],
        "accessPolicy": node["accessPolicy"],
        "routing": node["routingMode"],
    }


def _together(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> str | None:
    """Return what an option says that was given several times."""
    return ",".join(given) if given else None


_OPTIONS = (
    click.option("--alias", type=ALIAS, metavar="NAME", help="A second name, known to clients only; an empty text removes it."),
    click.option("--tcp", metavar="PORTS", multiple=True, callback=_together, help=PORTS_HELP),
    click.option("--udp", metavar="PORTS", multiple=True, callback=_together, help=PORTS_HELP),
    click.option("--icmp/--no-icmp", default=None, help="Allow echo requests."),
    click.option("--tag", "tags", type=TAG, multiple=True, metavar="KEY=VALUE", help="All tags it shall have; may be repeated."),
    click.option("--visible/--hidden", default=None, help="Whether people see it in lists; access stays the same."),
    click.option("--browser-shortcut/--no-browser-shortcut", default=None, help="Stored for clients of people."),
    POLICY.option("--policy", metavar="POLICY", help="Security policy for people; an empty text: the default one."),
    click.option(
        "--access-policy", type=ACCESS_POLICY, metavar="POLICY", help="For people: manual, auto-lock:30d or access-request:8h."
    ),
    click.option("--approval", type=click.Choice(["automatic", "manual"]), help="For people: how requests are approved."),
    click.option("--routing", type=click.Choice(["through", "bypass"]), help="bypass: clients dial it directly."),
)
_ROUTING = {"through": "THROUGH_TWINGATE", "bypass": "BYPASS_TWINGATE"}


def _with_options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _arguments(api: AdminApiClient, given: dict[str, Any]) -> dict[str, Argument]:
    """Return the arguments of resourceCreate and resourceUpdate that were given, ports aside."""
    found: dict[str, Argument] = {}
    if given["alias"] is not None:
        found["alias"] = ("String", given["alias"] or None)
    if given["tags"]:
        found["tags"] = ("[TagInput!]", list(given["tags"]))
    if given["visible"] is not None:
        found["isVisible"] = ("Boolean", given["visible"])
    if given["browser_shortcut"] is not None:
        found["isBrowserShortcutEnabled"] = ("Boolean", given["browser_shortcut"])
    if given["policy"] is not None:
        found["securityPolicyId"] = ("ID", POLICY.find(api, given["policy"])["id"] if given["policy"] else None)
    if given["access_policy"] is not None:
        found["accessPolicy"] = ("AccessPolicyInput", given["access_policy"])
    if given["approval"] is not None:
        found["approvalMode"] = ("AccessApprovalMode", given["approval"].upper())
    if given["routing"] is not None:
        found["routingMode"] = ("RoutingMode", _ROUTING[given["routing"]])
    return found


@resource.command()
@click.argument("name", type=NAME)
@NETWORK.option("--network", required=True, metavar="NETWORK", help="Remote network, by name or id.")
@click.option("--address", type=ADDRESS, required=True, metavar="ADDRESS", help="IP, CIDR, name, or name with * and ?.")
@_with_options
@with_api
def create(
    api: AdminApiClient,
    name: str,
    network: str,
    address: str,
    tcp: str | None,
    udp: str | None,
    icmp: bool | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Create a resource.

    Without --tcp, --udp and --icmp everything is allowed; with any of them, only what is named.

    \b
    example: klinket admin resource create --network office --address db.internal --tcp 5432 "Orders database"
    """
    protocols = protocols_of(tcp, udp, icmp)
    same = [row["id"] for row in RESOURCE.rows(api, "id", eq=name)]
    payload = api.mutate(
        "resourceCreate",
        f"entity {{ {SELECTION} }}",
        name=("String!", name),
        address=("String!", address),
        remoteNetworkId=("ID!", NETWORK.find(api, network)["id"]),
        protocols=("ProtocolsInput", protocols),
        **_arguments(api, given),
    )
    told(f"created resource {name}", row_of(payload["entity"]), as_json=as_json)
    if same:
        click.echo(f"there are now {len(same) + 1} with this name: name them by id ({', '.join(same)} and the new one)", err=True)


@resource.command("list")
@with_api
def list_resources(api: AdminApiClient, as_json: bool) -> None:
    """List resources.

    \b
    example: klinket admin resource list
    """
    rows = [row_of(node) for node in RESOURCE.rows(api, SELECTION)]
    columns = {
        "NAME": "name", "ADDRESS": "address", "ALIAS": "alias", "NETWORK": "network",
        "TCP": "tcp", "UDP": "udp", "ACTIVE": "active", "ID": "id",
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, empty="no resource yet: klinket admin resource create --help")


@resource.command()
@RESOURCE.argument()
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one resource, by name or id, with who may use it, and until when.

    \b
    example: klinket admin resource show "Orders database"
    """
    node = RESOURCE.find(api, name, SELECTION)
    access = access_of(api, node["id"])
    people = [f"{one['name']} (until {one['expiresAt']})" if one["expiresAt"] else one["name"] for one in access]
    show_object({**row_of(node), "access": access if as_json else people}, as_json=as_json)


@resource.command()
@RESOURCE.argument()
@click.option("--name", "new_name", type=NAME, metavar="NAME", help="A new name.")
@click.option("--address", type=ADDRESS, metavar="ADDRESS", help="A new address.")
@NETWORK.option("--network", metavar="NETWORK", help="Move it to this remote network.")
@_with_options
@click.option("--no-tags", is_flag=True, help="Remove all tags.")
@with_api
@with_wait
def update(
    api: AdminApiClient,
    waiting: Waiting,
    name: str,
    new_name: str | None,
    address: str | None,
    network: str | None,
    tcp: str | None,
    udp: str | None,
    icmp: bool | None,
    no_tags: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Change a resource; flows that are no longer allowed end at once.

    \b
    example: klinket admin resource update "Orders database" --tcp 5432,5433
    """
    if no_tags and given["tags"]:
        raise click.UsageError("--tag and --no-tags exclude each other")
    node = RESOURCE.find(api, name, SELECTION)
    changes = _arguments(api, given)
    if no_tags:
        changes["tags"] = ("[TagInput!]", [])
    if new_name is not None:
        changes["name"] = ("String", new_name)
    if address is not None:
        changes["address"] = ("String", address)
    if network is not None:
        changes["remoteNetworkId"] = ("ID", NETWORK.find(api, network)["id"])
    if tcp is not None or udp is not None or icmp is not None:
        now = row_of(node)
        protocols = protocols_of(
            now["tcp"] if tcp is None else tcp, now["udp"] if udp is None else udp, now["icmp"] if icmp is None else icmp
        )
        changes["protocols"] = ("ProtocolsInput", protocols)
    if not changes:
        raise InvalidInput("options", "nothing to change", hint="see klinket admin resource update --help")
    payload = api.mutate("resourceUpdate", f"entity {{ {SELECTION} }}", id=("ID!", node["id"]), **changes)
    waiting.tell(f"changed resource {name}", row_of(payload["entity"]), scope=_cut_of(node), as_json=as_json)


def _cut_of(node: dict[str, Any]) -> Callable[[str], bool]:
    wanted = f"resource {RESOURCE.number(node)}"
    return lambda scope: scope == wanted


@resource.command()
@RESOURCE.argument()
@with_api
def enable(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Make a disabled resource accessible again.

    \b
    example: klinket admin resource enable "Orders database"
    """
    api.mutate("resourceUpdate", id=("ID!", RESOURCE.find(api, name)["id"]), isActive=("Boolean", True))
    told(f"enabled resource {name}", as_json=as_json)


@resource.command()
@RESOURCE.argument()
@with_api
@with_wait
def disable(api: AdminApiClient, waiting: Waiting, name: str, as_json: bool) -> None:
    """Keep the resource but let nobody use it; its flows end at once.

    \b
    example: klinket admin resource disable "Orders database" --wait
    """
    node = RESOURCE.find(api, name)
    api.mutate("resourceUpdate", id=("ID!", node["id"]), isActive=("Boolean", False))
    waiting.tell(f"disabled resource {name}", scope=_cut_of(node), as_json=as_json)


@resource.command()
@RESOURCE.argument()
@with_api
@with_wait
def delete(api: AdminApiClient, waiting: Waiting, name: str, as_json: bool) -> None:
    """Delete a resource; its flows end at once.

    \b
    example: klinket admin resource delete "Orders database" --wait
    """
    node = RESOURCE.find(api, name)
    api.mutate("resourceDelete", id=("ID!", node["id"]))
    waiting.tell(f"deleted resource {name}", scope=_cut_of(node), as_json=as_json)
