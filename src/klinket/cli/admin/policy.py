"""`klinket admin policy`: security policies. They hold for people; a service account reaches what it was granted without."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, Argument
from klinket.cli.admin.named import GROUP, POLICY
from klinket.cli.admin.output import show_object, show_rows, told
from klinket.domain.errors import InvalidInput

SELECTION = "id name policyType createdAt groups { edges { node { name } } }"


@click.group()
def policy() -> None:
    """Security policies: which groups each one is for. `Default Policy` is always there.

    \b
    example: klinket admin policy list
    """


def _row(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "groups": [edge["node"]["name"] for edge in node["groups"]["edges"]]}


@policy.command("list")
@with_api
def list_policies(api: AdminApiClient, as_json: bool) -> None:
    """List security policies.

    \b
    example: klinket admin policy list
    """
    rows = [_row(node) for node in POLICY.rows(api, SELECTION)]
    show_rows(rows, {"NAME": "name", "TYPE": "policyType", "GROUPS": "groups", "ID": "id"}, as_json=as_json)


@policy.command()
@POLICY.argument()
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one security policy, by name or id.

    \b
    example: klinket admin policy show "Default Policy"
    """
    show_object(_row(POLICY.find(api, name, SELECTION)), as_json=as_json)


@policy.command()
@POLICY.argument()
@GROUP.option("--add-group", "added", multiple=True, metavar="GROUP", help="Make it this group's policy; may be repeated.")
@GROUP.option("--remove-group", "removed", multiple=True, metavar="GROUP", help="Not this group's any more; may be repeated.")
@GROUP.option("--group", "groups", multiple=True, metavar="GROUP", help="Exactly these groups; may be repeated.")
@click.option("--no-groups", is_flag=True, help="No group at all.")
@with_api
def update(
    api: AdminApiClient,
    name: str,
    added: tuple[str, ...],
    removed: tuple[str, ...],
    groups: tuple[str, ...],
    no_groups: bool,
    as_json: bool,
) -> None:
    """Say which groups have this policy.

    \b
    example: klinket admin policy update "Default Policy" --add-group engineers
    """
    if ((groups or no_groups) and (added or removed)) or (groups and no_groups):
        raise click.UsageError("--group, --no-groups and --add-group with --remove-group exclude each other")

    def ids(names: tuple[str, ...]) -> list[str]:
        return [GROUP.find(api, one)["id"] for one in names]

    changes: dict[str, Argument] = {}
    if groups or no_groups:
        changes["groupIds"] = ("[ID]", ids(groups))
    if added:
        changes["addedGroupIds"] = ("[ID]", ids(added))
    if removed:
        changes["removedGroupIds"] = ("[ID]", ids(removed))
    if not changes:
        raise InvalidInput("options", "nothing to change", hint="see klinket admin policy update --help")
    id = POLICY.find(api, name)["id"]
    payload = api.mutate("securityPolicyUpdate", f"entity {{ {SELECTION} }}", id=("ID!", id), **changes)
    told(f"changed policy {name}", _row(payload["entity"]), as_json=as_json)
