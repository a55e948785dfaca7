"""`klinket admin token`: API tokens. A new token is shown once, on stdout or in a file of mode 0600."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.named import TOKEN
from klinket.cli.admin.output import abandon_secret, print_secret, reserve_secret, show_object, show_rows, told, write_secret
from klinket.cli.admin.params import DAYS, FILE, NAME

SELECTION = "id name scopes isEnabled isExpired expiresAt allowedRanges lastUsedAt createdAt createdBy"
DEFAULT_DAYS = 365

_SCOPE = click.Choice(["read", "write", "provision"])
_RANGES = click.option(
    "--range", "ranges", multiple=True, metavar="RANGE", help="Use from here only, e.g. 192.0.2.0/24; may be repeated."
)


@click.group()
def token() -> None:
    """API tokens: what opens the Admin API, for people, scripts and Terraform.

    A token makes and changes only tokens that can do no more than itself, and of itself changes only the name.

    \b
    example: klinket admin token list
    """


def _row(node: dict[str, Any]) -> dict[str, Any]:
    """Add what a person wants to know: `scope`, the highest, which brings the others, and `state`."""
    state = "expired" if node["isExpired"] else "enabled" if node["isEnabled"] else "disabled"
    return {**node, "scope": node["scopes"][-1].lower(), "state": state}


def find_token(api: AdminApiClient, wanted: str) -> dict[str, Any]:
    """Return the token with this name or id; raises NotFound."""
    return _row(TOKEN.find(api, wanted, SELECTION))


def _update(api: AdminApiClient, wanted: str, **changes: Any) -> dict[str, Any]:
    payload = api.extension.change(
        "apiTokenUpdate",
        "mutation($id: ID!, $name: String, $scopes: [ApiTokenScope!], $isEnabled: Boolean, $allowedRanges: [String!])"
        " { apiTokenUpdate(id: $id, name: $name, scopes: $scopes, isEnabled: $isEnabled, allowedRanges: $allowedRanges)"
        f" {{ ok error entity {{ {SELECTION} }} }} }}",
        id=find_token(api, wanted)["id"],
        **changes,
    )
    return _row(payload["entity"])


@token.command()
@click.argument("name", type=NAME)
@click.option("--scope", type=_SCOPE, default="read", show_default=True, help="The highest; it brings those below it.")
@click.option("--days", default=DEFAULT_DAYS, type=DAYS, show_default=True, help="Days until it expires; 0: never.")
@_RANGES
@click.option("--out", type=FILE, metavar="FILE", help="Write the token there, mode 0600, instead of to stdout.")
@with_api
def create(
    api: AdminApiClient, name: str, scope: str, days: int, ranges: tuple[str, ...], out: str | None, as_json: bool
) -> None:
    """Create a token. Its text is shown this once and kept nowhere.

    \b
    example: klinket admin token create terraform --scope provision --days 90 \\
                 --range 192.0.2.0/24 --out terraform.token
    """
    descriptor = reserve_secret(out) if out else None
    try:
        payload = api.extension.change(
            "apiTokenCreate",
            "mutation($name: String!, $scopes: [ApiTokenScope!]!, $days: Int!, $ranges: [String!])"
            " { apiTokenCreate(name: $name, scopes: $scopes, expirationTime: $days, allowedRanges: $ranges)"
            f" {{ ok error token entity {{ {SELECTION} }} }} }}",
            name=name,
            scopes=[scope.upper()],
            days=days,
            ranges=list(ranges),
        )
    except BaseException:
        if descriptor is not None and out:
            abandon_secret(descriptor, out)
        raise
    entity = _row(payload["entity"])
    if descriptor is not None:
        write_secret(descriptor, payload["token"] + "\n")
        told(f"wrote {out} (token {entity['name']}, expires {entity['expiresAt'] or 'never'})", entity, as_json=as_json)
    elif as_json:
        told("", {**entity, "token": payload["token"]}, as_json=True)
    else:
        print_secret(payload["token"])


@token.command("list")
@with_api
def list_tokens(api: AdminApiClient, as_json: bool) -> None:
    """List tokens with scope, state and last use.

    \b
    example: klinket admin token list
    """
    rows = [_row(node) for node in TOKEN.rows(api, SELECTION)]
    columns = {
        "NAME": "name", "SCOPE": "scope", "STATE": "state", "EXPIRES": "expiresAt", "FROM": "allowedRanges",
        "LAST USED": "lastUsedAt", "MADE BY": "createdBy", "ID": "id",
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, empty="no token yet: klinket admin token create NAME")


@token.command()
@TOKEN.argument()
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one token, by name or id.

    \b
    example: klinket admin token show terraform
    """
    show_object(find_token(api, name), as_json=as_json)


@token.command()
@TOKEN.argument()
@click.option("--name", "new_name", type=NAME, metavar="NAME", help="A new name.")
@click.option("--scope", type=_SCOPE, help="The highest scope; it brings those below it.")
@_RANGES
@click.option("--from-everywhere", is_flag=True, help="Lift the restriction to ranges.")
@with_api
def update(
    api: AdminApiClient,
    name: str,
    new_name: str | None,
    scope: str | None,
    ranges: tuple[str, ...],
    from_everywhere: bool,
    as_json: bool,
) -> None:
    """Change name, scope or source ranges of a token. The expiry stays: make a new token instead.

    \b
    example: klinket admin token update terraform --scope write --range 192.0.2.0/24 --range 2001:db8::/32
    """
    if ranges and from_everywhere:
        raise click.UsageError("--range and --from-everywhere exclude each other")
    changed = _update(
        api,
        name,
        name=new_name,
        scopes=None if scope is None else [scope.upper()],
        allowedRanges=[] if from_everywhere else list(ranges) or None,
    )
    told(f"changed token {changed['name']}", changed, as_json=as_json)


@token.command()
@TOKEN.argument()
@with_api
def enable(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Let a disabled token be used again.

    \b
    example: klinket admin token enable terraform
    """
    changed = _update(api, name, isEnabled=True)
    told(f"enabled token {changed['name']}", changed, as_json=as_json)


@token.command()
@TOKEN.argument()
@with_api
def disable(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Refuse a token from now on, until it is enabled again.

    \b
    example: klinket admin token disable terraform
    """
    changed = _update(api, name, isEnabled=False)
    told(f"disabled token {changed['name']}", changed, as_json=as_json)


@token.command()
@TOKEN.argument()
@with_api
def delete(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Delete a token for good.

    \b
    example: klinket admin token delete terraform
    """
    api.extension.change(
        "apiTokenDelete",
        "mutation($id: ID!) { apiTokenDelete(id: $id) { ok error } }",
        id=find_token(api, name)["id"],
    )
    told(f"deleted token {name}", as_json=as_json)
