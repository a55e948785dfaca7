"""`klinket admin user`: people, named by their address."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, Argument
from klinket.cli.admin.named import USER
from klinket.cli.admin.output import show_object, show_rows, told
from klinket.domain.errors import InvalidInput

SELECTION = "id email firstName lastName state role type createdAt groups { edges { node { name } } }"
ROLES = click.Choice(["admin", "devops", "support", "member", "access-reviewer"], case_sensitive=False)


@click.group()
def user() -> None:
    """Users: people, their roles and states.

    \b
    example: klinket admin user list
    """


def _row(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "groups": [edge["node"]["name"] for edge in node["groups"]["edges"]]}


def _role(text: str) -> str:
    return text.replace("-", "_").upper()


def _change(api: AdminApiClient, mutation: str, email: str, /, **changes: Argument) -> dict[str, Any]:
    id = USER.find(api, email, "id email")["id"]
    return _row(api.mutate(mutation, f"entity {{ {SELECTION} }}", id=("ID!", id), **changes)["entity"])


@user.command("list")
@with_api
def list_users(api: AdminApiClient, as_json: bool) -> None:
    """List users.

    \b
    example: klinket admin user list
    """
    rows = [_row(node) for node in USER.rows(api, SELECTION)]
    columns = {
        "EMAIL": "email", "FIRST NAME": "firstName", "LAST NAME": "lastName", "STATE": "state",
        "ROLE": "role", "GROUPS": "groups", "ID": "id",
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, empty="no user yet: klinket admin user create EMAIL")


@user.command()
@USER.argument("email")
@with_api
def show(api: AdminApiClient, email: str, as_json: bool) -> None:
    """Show one user, by address or id.

    \b
    example: klinket admin user show ada@example.com
    """
    show_object(_row(USER.find(api, email, SELECTION)), as_json=as_json)


@user.command()
@click.argument("email")
@click.option("--first-name", metavar="NAME")
@click.option("--last-name", metavar="NAME")
@click.option("--role", type=ROLES, default="member", show_default=True)
@click.option("--invite/--no-invite", default=True, show_default=True, help="Stored; klinket itself sends no invitations.")
@with_api
def create(
    api: AdminApiClient, email: str, first_name: str | None, last_name: str | None, role: str, invite: bool, as_json: bool
) -> None:
    """Create a user, who is pending until the first sign-in.

    \b
    example: klinket admin user create ada@example.com --first-name Ada --role devops
    """
    payload = api.mutate(
        "userCreate",
        f"entity {{ {SELECTION} }}",
        email=("String!", email),
        firstName=("String", first_name),
        lastName=("String", last_name),
        role=("UserRole", _role(role)),
        shouldSendInvite=("Boolean", invite),
    )
    told(f"created user {payload['entity']['email']}", _row(payload["entity"]), as_json=as_json)


@user.command()
@USER.argument("email")
@click.option("--first-name", metavar="NAME")
@click.option("--last-name", metavar="NAME")
@click.option("--state", type=click.Choice(["active", "disabled"], case_sensitive=False))
@with_api
def update(
    api: AdminApiClient, email: str, first_name: str | None, last_name: str | None, state: str | None, as_json: bool
) -> None:
    """Change name or state of a user.

    \b
    example: klinket admin user update ada@example.com --state disabled
    """
    if first_name is None and last_name is None and state is None:
        raise InvalidInput("options", "nothing to change", hint="see klinket admin user update --help")
    changed = _change(
        api,
        "userDetailsUpdate",
        email,
        firstName=("String", first_name),
        lastName=("String", last_name),
        state=("UserStateUpdateInput", state and state.upper()),
    )
    told(f"changed user {email}", changed, as_json=as_json)


@user.command()
@USER.argument("email")
@click.argument("role", type=ROLES)
@with_api
def role(api: AdminApiClient, email: str, role: str, as_json: bool) -> None:
    """Set the role of a user.

    \b
    example: klinket admin user role ada@example.com admin
    """
    changed = _change(api, "userRoleUpdate", email, role=("UserRole!", _role(role)))
    told(f"{email} has the role {role}", changed, as_json=as_json)


@user.command("reset-mfa")
@USER.argument("email")
@with_api
def reset_mfa(api: AdminApiClient, email: str, as_json: bool) -> None:
    """Take password and second factors from a user, who sets up both anew through a one-time link.

    \b
    example: klinket admin user reset-mfa ada@example.com
    """
    api.mutate("userResetMfa", id=("ID!", USER.find(api, email, "id email")["id"]))
    told(f"{email} has no password and no second factor now: hand over a one-time link", as_json=as_json)


@user.command()
@USER.argument("email")
@with_api
def delete(api: AdminApiClient, email: str, as_json: bool) -> None:
    """Delete a user.

    \b
    example: klinket admin user delete ada@example.com
    """
    api.mutate("userDelete", id=("ID!", USER.find(api, email, "id email")["id"]))
    told(f"deleted user {email}", as_json=as_json)
