"""`klinket admin service key`: service keys. A new key is shown once, on stdout or in a file of mode 0600."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, find
from klinket.cli.admin.output import (
    abandon_secret,
    print_secret,
    reserve_secret,
    show_rows,
    told,
    write_secret,
)

KEY = "id name status createdAt expiresAt revokedAt"
SELECTION = f"id name keys {{ edges {{ node {{ {KEY} }} }} }}"
DEFAULT_DAYS = 365


@click.group()
def key() -> None:
    """Service keys: active, revoked or expired; revoke before delete."""


def find_key(api: AdminApiClient, service: str, wanted: str) -> dict[str, Any]:
    """Return the key with this name or id of the service account; raises Missing, or Conflict for a shared name."""
    account = find(api.nodes("serviceAccounts", SELECTION), "Service account", service)
    return find((edge["node"] for edge in account["keys"]["edges"]), "Service key", wanted)


@key.command()
@click.argument("service")
@click.option("--name", metavar="NAME", help="A name for the key; without it the controller makes one up.")
@click.option("--days", default=DEFAULT_DAYS, show_default=True, help="Days until it expires; 0: never.")
@click.option("--out", metavar="FILE", help="Write the key file there, mode 0600, instead of to stdout.")
@with_api
def generate(api: AdminApiClient, service: str, name: str | None, days: int, out: str | None, as_json: bool) -> None:
    """Generate a key. Its text is shown this once and kept nowhere.

    \b
    example: klinket admin service key generate ci --name runner --days 90 --out ci-runner.json
    """
    account = find(api.nodes("serviceAccounts", "id name"), "Service account", service)
    descriptor = reserve_secret(out) if out else None
    try:
        payload = api.change(
            "serviceAccountKeyCreate",
            "mutation($account: ID!, $days: Int!, $name: String) { serviceAccountKeyCreate(serviceAccountId: $account,"
            f" expirationTime: $days, name: $name) {{ ok error token entity {{ {KEY} }} }} }}",
            account=account["id"],
            days=days,
            name=name,
        )
    except BaseException:
        if descriptor is not None and out:
            abandon_secret(descriptor, out)
        raise
    if descriptor is None:
        print_secret(payload["token"])
    else:
        write_secret(descriptor, payload["token"])
        entity = payload["entity"]
        told(f"wrote {out} (key {entity['name']}, expires {entity['expiresAt'] or 'never'})", entity, as_json=as_json)


@key.command("list")
@click.argument("service", required=False)
@with_api
def list_keys(api: AdminApiClient, service: str | None, as_json: bool) -> None:
    """List the keys of a service account, or of all."""
    accounts = list(api.nodes("serviceAccounts", SELECTION))
    if service is not None:
        accounts = [find(iter(accounts), "Service account", service)]
    rows = [{"service": account["name"], **edge["node"]} for account in accounts for edge in account["keys"]["edges"]]
    columns = {
        "SERVICE": "service", "KEY": "name", "STATUS": "status", "CREATED": "createdAt",
        "EXPIRES": "expiresAt", "REVOKED": "revokedAt", "ID": "id",
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, empty="no key yet: klinket admin service key generate SERVICE")


@key.command()
@click.argument("service")
@click.argument("name")
@click.argument("new_name")
@with_api
def rename(api: AdminApiClient, service: str, name: str, new_name: str, as_json: bool) -> None:
    """Rename a key, while it is active."""
    payload = api.change(
        "serviceAccountKeyUpdate",
        "mutation($id: ID!, $name: String!) { serviceAccountKeyUpdate(id: $id, name: $name)"
        f" {{ ok error entity {{ {KEY} }} }} }}",
        id=find_key(api, service, name)["id"],
        name=new_name,
    )
    told(f"renamed key {name} to {new_name}", payload["entity"], as_json=as_json)


@key.command()
@click.argument("service")
@click.argument("name")
@with_api
def revoke(api: AdminApiClient, service: str, name: str, as_json: bool) -> None:
    """Revoke a key for good; its sessions and flows end at once.

    \b
    example: klinket admin service key revoke ci runner
    """
    payload = api.change(
        "serviceAccountKeyRevoke",
        f"mutation($id: ID!) {{ serviceAccountKeyRevoke(id: $id) {{ ok error entity {{ {KEY} }} }} }}",
        id=find_key(api, service, name)["id"],
    )
    told(f"revoked key {name}; see: klinket admin cut list", payload["entity"], as_json=as_json)


@key.command()
@click.argument("service")
@click.argument("name")
@with_api
def delete(api: AdminApiClient, service: str, name: str, as_json: bool) -> None:
    """Delete a revoked or expired key."""
    api.change(
        "serviceAccountKeyDelete",
        "mutation($id: ID!) { serviceAccountKeyDelete(id: $id) { ok error } }",
        id=find_key(api, service, name)["id"],
    )
    told(f"deleted key {name}", as_json=as_json)
