"""`klinket admin service limits`: what a service account may take, all its keys together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.named import SERVICE
from klinket.cli.admin.output import show_object, show_rows, told
from klinket.cli.admin.params import Checked
from klinket.domain.account_limits import BOUNDS
from klinket.domain.errors import InvalidInput

SELECTION = (
    "serviceAccountName loginBurst loginsPerSecond maxSessions newFlowsBurst newFlowsPerSecond maxFlows bytesPerSecond"
    " own sessions throttledFlows throttledLogins"
)
DEFAULT = "default"


def _whole(text: str) -> int | str:
    if text == DEFAULT:
        return text
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise InvalidInput("limit", f"not a whole number: {text[:40]!r}", hint=f"write a number, or {DEFAULT}")
    return int(text)


def _bytes(text: str) -> int | str:
    try:
        return _whole(text)
    except InvalidInput as error:
        raise InvalidInput("limit", error.message, hint=f"write bytes, 10000000 for 10 MB a second, or {DEFAULT}") from error


def _rate(text: str) -> float | str:
    if text == DEFAULT:
        return text
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InvalidInput("limit", f"not a number: {text[:40]!r}", hint=f"write a number, or {DEFAULT}")
    return found


def _option(name: str, parse: Callable[[str], Any], help: str) -> Callable[[Any], Any]:
    least, most = BOUNDS[name.removeprefix("--").replace("-", "_")]

    def parsed(text: str) -> Any:
        if text.startswith("-"):
            wrong = f"must be a number from {least:,} to {most:,}, not {text[:40]!r}"
            raise InvalidInput("limit", wrong, hint=f"write a number, or {DEFAULT}")
        return parse(text)

    return click.option(name, type=Checked("limit", parsed), metavar="N", help=help)


@click.command()
@SERVICE.argument()
@_option("--login-burst", _whole, "Logins at once.")
@_option("--logins-per-second", _rate, "Logins a second after that.")
@_option("--max-sessions", _whole, "Sessions at a time.")
@_option("--new-flows-burst", _whole, "New flows at once, at each connector.")
@_option("--new-flows-per-second", _rate, "New flows a second after that.")
@_option("--max-flows", _whole, "Flows at a time, at each connector.")
@_option("--bytes-per-second", _bytes, "Bytes a second of all flows, each direction by itself, at each connector.")
@with_api
def limits(api: AdminApiClient, name: str, as_json: bool, **given: Any) -> None:
    """Show the limits of a service account, or set some: a number, or `default`.

    They hold for all keys of the account together, from the next login and the next flow on; bandwidth at once.

    \b
    example: klinket admin service limits ci --logins-per-second 5 --max-flows default
    """
    id = SERVICE.find(api, name)["id"]
    changed = {_field(option): None if value == DEFAULT else value for option, value in given.items() if value is not None}
    if not changed:
        document = f"query($id: ID!) {{ accountLimits(serviceAccountId: $id) {{ {SELECTION} }} }}"
        found = api.extension.execute(document, id=id)["accountLimits"]
        if as_json:
            show_object(found, as_json=True)
        else:
            _show(found)
        return
    payload = api.extension.mutate(
        "accountLimitsSet",
        f"entity {{ {SELECTION} }}",
        serviceAccountId=("ID!", id),
        limits=("AccountLimitsInput!", changed),
    )
    told(
        f"changed the limits of {name}: they count from the next login and the next flow on, bandwidth at once",
        payload["entity"],
        as_json=as_json,
    )


def _amount(value: float | None) -> str:
    return "no limit" if value is None else f"{int(value):,}" if value == int(value) else str(value)


def _show(found: dict[str, Any]) -> None:
    """Print limits for people: each in the words of its option."""
    rows = [
        {
            "limit": (option.help or "").rstrip("."),
            "value": _amount(found[_field(option.name)]),
            "set": "for this account" if _field(option.name) in found["own"] else DEFAULT,
            "option": option.opts[0],
        }
        for option in limits.params
        if isinstance(option, click.Option) and option.name is not None and option.name in BOUNDS
    ]
    show_rows(rows, {"LIMIT": "limit", "VALUE": "value", "SET": "set", "OPTION": "option"}, as_json=False)
    click.echo("")
    show_object(
        {
            "sessions now": found["sessions"],
            "flows refused, 7 days": found["throttledFlows"],
            "logins refused since the controller began": found["throttledLogins"],
        },
        as_json=False,
    )


def _field(option: str) -> str:
    first, *more = option.split("_")
    return first + "".join(part.capitalize() for part in more)
