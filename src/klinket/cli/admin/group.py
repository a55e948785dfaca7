"""`klinket admin group`: groups of people. Services belong to none; groups and services get access side by side."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, Argument
from klinket.cli.admin.named import GROUP, POLICY, USER
from klinket.cli.admin.output import show_object, show_rows, told
from klinket.cli.admin.params import NAME

SELECTION = (
    "id name type isActive createdAt securityPolicy { name } users { totalCount edges { node { email } } }"
    " resources { totalCount edges { node { name } } }"
)


@click.group()
def group() -> None:
    """Groups: people who get access together. `Everyone` is always there.

    \b
    example: klinket admin group list
    """


def _row(node: dict[str, Any]) -> dict[str, Any]:
    return {
        **node,
        "securityPolicy": node["securityPolicy"] and node["securityPolicy"]["name"],
        "users": [edge["node"]["email"] for edge in node["users"]["edges"]],
        "members": node["users"]["totalCount"],
        "resources": [edge["node"]["name"] for edge in node["resources"]["edges"]],
    }


def _update(api: AdminApiClient, name: str, /, **changes: Argument) -> dict[str, Any]:
    """Change a group and return it."""
    id = GROUP.find(api, name)["id"]
    entity: dict[str, Any] = api.mutate("groupUpdate", f"entity {{ {SELECTION} }}", id=("ID!", id), **changes)["entity"]
    return _row(entity)


@group.command("list")
@with_api
def list_groups(api: AdminApiClient, as_json: bool) -> None:
    """List groups.

    \b
    example: klinket admin group list
    """
    rows = [_row(node) for node in GROUP.rows(api, SELECTION)]
    columns = {
        "NAME": "name", "TYPE": "type", "MEMBERS": "members", "POLICY": "securityPolicy",
        "RESOURCES": "resources", "ACTIVE": "isActive", "ID": "id",
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, empty="no group yet: klinket admin group create NAME")


@group.command()
@GROUP.argument()
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one group, by name or id, with its members and resources.

    \b
    example: klinket admin group show engineers
    """
    show_object(_row(GROUP.find(api, name, SELECTION)), as_json=as_json)


@group.command()
@click.argument("name", type=NAME)
@USER.option("--user", "users", multiple=True, metavar="EMAIL", help="A member, by address or id; may be repeated.")
@POLICY.option("--policy", metavar="POLICY", help="The security policy of its members' access.")
@with_api
def create(api: AdminApiClient, name: str, users: tuple[str, ...], policy: str | None, as_json: bool) -> None:
    """Create a group.

    \b
    example: klinket admin group create engineers --user ada@example.com
    """
    ids = [USER.find(api, user, "id email")["id"] for user in users]
    policy_id = None if policy is None else POLICY.find(api, policy)["id"]
    payload = api.mutate(
        "groupCreate",
        f"entity {{ {SELECTION} }}",
        name=("String!", name),
        userIds=("[ID]", ids or None),
        securityPolicyId=("ID", policy_id),
    )
    told(f"created group {name}", _row(payload["entity"]), as_json=as_json)


@group.command()
@GROUP.argument()
@click.argument("new_name", type=NAME)
@with_api
def rename(api: AdminApiClient, name: str, new_name: str, as_json: bool) -> None:
    """Rename a group.

    \b
    example: klinket admin group rename engineers developers
    """
    told(f"renamed group {name} to {new_name}", _update(api, name, name=("String", new_name)), as_json=as_json)


@group.command()
@GROUP.argument()
@USER.option("--add", "added", multiple=True, metavar="EMAIL", help="By address or id; may be repeated.")
@USER.option("--remove", "removed", multiple=True, metavar="EMAIL", help="By address or id; may be repeated.")
@with_api
def members(api: AdminApiClient, name: str, added: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    """List the members of a group, after adding and removing some.

    \b
    example: klinket admin group members engineers --add ada@example.com
    """
    group = _row(GROUP.find(api, name, SELECTION))
    if added or removed:
        add = [USER.find(api, user, "id email")["id"] for user in added]
        remove = [USER.find(api, user, "id email")["id"] for user in removed]
        group = _update(api, group["id"], addedUserIds=("[ID]", add), removedUserIds=("[ID]", remove))
    document = (
        "query($id: ID!, $after: String) { group(id: $id) { users(first: 100, after: $after)"
        " { pageInfo { hasNextPage endCursor } edges { node { id email firstName lastName state role } } } } }"
    )
    rows: list[dict[str, Any]] = []
    after = None
    while True:
        page = api.execute(document, id=group["id"], after=after)["group"]["users"]
        rows += [edge["node"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    columns = {"EMAIL": "email", "FIRST NAME": "firstName", "LAST NAME": "lastName", "STATE": "state", "ROLE": "role", "ID": "id"}
    show_rows(rows, columns, as_json=as_json, empty=f"no member: klinket admin group members {name} --add EMAIL")


@group.command()
@GROUP.argument()
@POLICY.argument("policy")
@with_api
def policy(api: AdminApiClient, name: str, policy: str, as_json: bool) -> None:
    """Set the security policy of a group.

    \b
    example: klinket admin group policy engineers "Default Policy"
    """
    changed = _update(api, name, securityPolicyId=("ID", POLICY.find(api, policy)["id"]))
    told(f"group {name} has the policy {policy}", changed, as_json=as_json)


@group.command()
@GROUP.argument()
@with_api
def delete(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Delete a group with its access.

    \b
    example: klinket admin group delete engineers
    """
    api.mutate("groupDelete", id=("ID!", GROUP.find(api, name)["id"]))
    told(f"deleted group {name}", as_json=as_json)
