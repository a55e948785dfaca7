"""`klinket admin service key`: service keys. A new key is shown once, on stdout or in a file of mode 0600."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, Argument, Missing
from klinket.cli.admin.named import KEY as NOUN
from klinket.cli.admin.named import SERVICE, completing, pick
from klinket.cli.admin.output import abandon_secret, print_secret, reserve_secret, show_object, show_rows, told, write_secret
from klinket.cli.admin.params import DAYS, FILE, NAME, WITHIN_DAYS, read_pem
from klinket.cli.admin.waiting import Waiting, with_wait
from klinket.domain.account_limits import MAX_SEATS, SeatsExceeded
from klinket.domain.errors import Conflict, InvalidInput

KEY = "id name status createdAt expiresAt revokedAt"
FULL = (
    "id name status serviceAccountId serviceAccountName createdAt createdBy { type name } expiresAt revokedAt origin keyId"
    " thumbprint isIdle replacesId overlapEndsAt seats seatsExceeded isCanary lastUse { time hostname address clientVersion }"
)
DEFAULT_DAYS = 365
DEFAULT_OVERLAP_HOURS = 24

_DAYS = click.option("--days", default=DEFAULT_DAYS, show_default=True, type=DAYS, help="Days until it expires; 0: never.")
_NAME = click.option("--name", type=NAME, metavar="NAME", help="A name for the key; without it the controller makes one up.")
_OUT = click.option("--out", type=FILE, metavar="FILE", help="Write the key file there, mode 0600, instead of to stdout.")
_SEATS = click.option("--seats", type=click.IntRange(1, MAX_SEATS), metavar="N", help="Sessions at a time with this key.")
_EXCEEDED = click.option(
    "--seats-exceeded", type=click.Choice([one.value for one in SeatsExceeded]),
    help="What a login beyond the seats does: it raises a warning (a new key's default), or is refused.",
)  # fmt: skip


@click.group()
def key() -> None:
    """Service keys: active, revoked or expired; revoke before delete.

    \b
    example: klinket admin service key generate ci --name runner --days 90 --out ci-runner.json
    """


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of keys that begin so: of the service account that was named, else of all."""
    try:
        names = sorted({row["name"] for row in _keys(completing(ctx), ctx.params.get("service"), "id name")})
    except Exception:  # a prompt is no place for errors
        return []
    return [name for name in names if name.startswith(incomplete)]


_SERVICE = SERVICE.argument("service")
_KEY = click.argument("name", metavar="KEY", shell_complete=_complete)
#: Of lists: those of one key.
KEY_OPTION = click.option(
    "--key", metavar="KEY", shell_complete=_complete, help="With this service key (name or id), of --service or of all."
)


def _keys(api: AdminApiClient, service: str | None, selection: str) -> list[dict[str, Any]]:
    filter = {} if service is None else {"serviceAccountId": SERVICE.find(api, service)["id"]}
    return list(api.extension.nodes("serviceKeys", selection, filter=("ServiceKeyFilterInput", filter)))


def find_key(
    api: AdminApiClient, service: str | None, wanted: str, selection: str = "id name keyId status", *, active: bool = False
) -> dict[str, Any]:
    """Return the key with this name or id of the service account, None: of all; raises Missing, Conflict for a shared name.

    `active`: where several have the name, and one of them is active, as after a rotation, it is that one.
    """
    rows = _keys(api, service, selection)
    if active and wanted not in {row["id"] for row in rows}:
        alive = [row for row in rows if row["name"] == wanted and row["status"] == "ACTIVE"]
        rows = alive if len(alive) == 1 else rows
    return pick(rows, NOUN, wanted)


def id_of_key(api: AdminApiClient, service: str | None, wanted: str) -> str:
    """Return the Admin API's id of a key that events may still name: a deleted one has no other name. Raises as `find_key`."""
    try:
        found: str = find_key(api, service, wanted)["id"]
    except Missing:
        if NOUN.is_id(wanted):
            return wanted
        raise
    except Conflict as error:
        hint = error.hint if service is not None else "name its service account as well, with --service; or give the id"
        raise Conflict(error.message, hint=hint) from error
    return found


def _hand_out(api: AdminApiClient, mutation: str, text: str, out: str | None, as_json: bool, **arguments: Argument) -> None:
    """Make a key and hand out its file; `text`: the field that holds it."""
    descriptor = reserve_secret(out) if out else None
    try:
        payload = api.mutate(mutation, f"{text} entity {{ {KEY} }}", **arguments)
    except BaseException:
        if descriptor is not None and out:
            abandon_secret(descriptor, out)
        raise
    entity = payload["entity"]
    if descriptor is not None:
        write_secret(descriptor, payload[text])
        told(f"wrote {out} (key {entity['name']}, expires {entity['expiresAt'] or 'never'})", entity, as_json=as_json)
    elif text == "keyFile":
        click.echo(payload[text])
    else:
        print_secret(payload[text])


@key.command()
@_SERVICE
@_NAME
@_DAYS
@_SEATS
@_EXCEEDED
@click.option("--canary", is_flag=True, help="A key that opens nothing, ever, and raises an alarm when somebody tries it.")
@_OUT
@with_api
def generate(
    api: AdminApiClient,
    service: str,
    name: str | None,
    days: int,
    seats: int | None,
    seats_exceeded: str | None,
    canary: bool,
    out: str | None,
    as_json: bool,
) -> None:
    """Generate a key. Its text is shown this once and kept nowhere.

    A canary key is laid where only a thief looks.

    \b
    example: klinket admin service key generate ci --name runner --days 90 --seats 1 --out ci-runner.json
    """
    if canary and seats is not None:
        raise click.UsageError("--seats and --canary exclude each other")
    if seats_exceeded is not None and seats is None:
        raise click.UsageError("--seats-exceeded needs --seats N: without it the key has as many seats as its account")
    arguments: dict[str, Argument] = {
        "serviceAccountId": ("ID!", SERVICE.find(api, service)["id"]),
        "expirationTime": ("Int!", days),
        "name": ("String", name),
    }
    if seats is None and not canary:
        _hand_out(api, "serviceAccountKeyCreate", "token", out, as_json, **arguments)
        return
    arguments |= {
        "seats": ("Int", seats),
        "seatsExceeded": ("SeatsExceeded", (seats_exceeded or SeatsExceeded.ALERT.value).upper()),
        "isCanary": ("Boolean", canary),
    }
    _hand_out(api.extension, "serviceKeyGenerate", "token", out, as_json, **arguments)


@key.command()
@_SERVICE
@_KEY
@click.argument("seats", metavar="N|none", type=click.UNPROCESSED)
@_EXCEEDED
@with_api
def seats(api: AdminApiClient, service: str, name: str, seats: str, seats_exceeded: str | None, as_json: bool) -> None:
    """Say how many sessions may use an active key at a time; none: as many as its service account.

    Without --seats-exceeded what happens beyond stays as it is.

    \b
    example: klinket admin service key seats ci runner 1 --seats-exceeded refuse
    """
    if seats != "none" and not (seats.isascii() and seats.isdigit() and 1 <= int(seats[:9]) <= MAX_SEATS):
        raise InvalidInput("N|none", f"N|none must be a whole number from 1 to {MAX_SEATS}, or none")
    payload = api.extension.mutate(
        "serviceKeySetSeats",
        "entity { id name seats seatsExceeded }",
        id=("ID!", find_key(api, service, name)["id"]),
        seats=("Int", None if seats == "none" else int(seats)),
        seatsExceeded=("SeatsExceeded", None if seats_exceeded is None else seats_exceeded.upper()),
    )
    beyond = "is refused" if payload["entity"]["seatsExceeded"] == SeatsExceeded.REFUSE.value.upper() else "raises a warning"
    has = "as many seats as its account" if seats == "none" else f"seats: {seats}; a login beyond {beyond}"
    told(f"key {name} has {has}", payload["entity"], as_json=as_json)


@key.command()
@_SERVICE
@click.option("--public-key", type=FILE, required=True, metavar="FILE", help="PEM, ECDSA P-256.")
@_NAME
@_DAYS
@_OUT
@with_api
def register(
    api: AdminApiClient, service: str, public_key: str, name: str | None, days: int, out: str | None, as_json: bool
) -> None:
    """Take in a public key whose private half stays where it was made (TPM, HSM, KMS).

    What comes out is the key file without the private key: its owner fills that in.

    \b
    example: klinket admin service key register ci --public-key ci.pub --name hsm --out ci-hsm.json
    """
    _hand_out(
        api.extension,
        "serviceKeyRegister",
        "keyFile",
        out,
        as_json,
        serviceAccountId=("ID!", SERVICE.find(api, service)["id"]),
        publicKey=("String!", read_pem("--public-key", public_key)),
        expirationTime=("Int!", days),
        name=("String", name),
    )


@key.command()
@_SERVICE
@_KEY
@click.option(
    "--overlap", default=DEFAULT_OVERLAP_HOURS, show_default=True, type=click.IntRange(0), metavar="HOURS",
    help="The old key is revoked at the first use of the new one, or after so many hours.",
)  # fmt: skip
@click.option("--new-name", type=NAME, metavar="NAME", help="A name for the new key.")
@_DAYS
@click.option("--public-key", type=FILE, metavar="FILE", help="Take this one in (PEM) instead of making a pair.")
@_OUT
@with_api
def rotate(
    api: AdminApiClient,
    service: str,
    name: str,
    overlap: int,
    new_name: str | None,
    days: int,
    public_key: str | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Make the key that takes over from an active one; both work until the first use of the new one.

    \b
    example: klinket admin service key rotate ci runner --days 90 --out ci-runner-2.json
    """
    _hand_out(
        api.extension,
        "serviceKeyRotate",
        "token",
        out,
        as_json,
        id=("ID!", find_key(api, service, name)["id"]),
        expirationTime=("Int!", days),
        overlapHours=("Int", overlap),
        name=("String", new_name),
        publicKey=("String", None if public_key is None else read_pem("--public-key", public_key)),
    )


def _row(node: dict[str, Any]) -> dict[str, Any]:
    used = node["lastUse"] or {}
    where = {"usedAt": used.get("time"), "usedOn": used.get("hostname"), "usedFrom": used.get("address")}
    return {**node, "service": node["serviceAccountName"], **where, "client": used.get("clientVersion")}


@key.command("list")
@SERVICE.argument("service", required=False)
@click.option("--all", "everything", is_flag=True, help="Of all service accounts, as without SERVICE.")
@click.option("--status", type=click.Choice(["active", "revoked", "expired"]))
@click.option("--expiring", type=WITHIN_DAYS, metavar="TIME", help="Active, and expiring within 30d (or 4w); the first first.")
@click.option("--idle", is_flag=True, help="Active, and without a login for 30 days.")
@with_api
def list_keys(
    api: AdminApiClient,
    service: str | None,
    everything: bool,
    status: str | None,
    expiring: int | None,
    idle: bool,
    as_json: bool,
) -> None:
    """List the keys of a service account, or of all, with their last use.

    \b
    example: klinket admin service key list --all --expiring 30d --idle
    """
    if everything and service is not None:
        raise click.UsageError("SERVICE and --all exclude each other")
    filter = {
        "serviceAccountId": None if service is None else SERVICE.find(api, service)["id"],
        "status": None if status is None else [status.upper()],
        "expiringWithinDays": expiring,
        "isIdle": True if idle else None,
    }
    nodes = api.extension.nodes("serviceKeys", FULL, filter=("ServiceKeyFilterInput", filter))
    rows = [_row(node) for node in nodes]
    columns = {
        "SERVICE": "service", "KEY": "name", "STATUS": "status", "EXPIRES": "expiresAt", "LAST USED": "usedAt",
        "ON": "usedOn", "FROM": "usedFrom", "CLIENT": "client", "IDLE": "isIdle",
        "SEATS": "seats", "CANARY": "isCanary", "ID": "id",
    }  # fmt: skip
    narrowed = status is not None or expiring is not None or idle
    empty = "no such key" if narrowed else "no key yet: klinket admin service key generate SERVICE"
    show_rows(rows, columns, as_json=as_json, empty=empty)


@key.command()
@_SERVICE
@_KEY
@with_api
def show(api: AdminApiClient, service: str, name: str, as_json: bool) -> None:
    """Show one key: its state, who made it, its last use.

    \b
    example: klinket admin service key show ci runner
    """
    show_object(_row(find_key(api, service, name, FULL)), as_json=as_json)


@key.command()
@_SERVICE
@_KEY
@click.argument("new_name", type=NAME)
@with_api
def rename(api: AdminApiClient, service: str, name: str, new_name: str, as_json: bool) -> None:
    """Rename a key, while it is active.

    \b
    example: klinket admin service key rename ci runner runner-1
    """
    id = find_key(api, service, name, active=True)["id"]
    payload = api.mutate("serviceAccountKeyUpdate", f"entity {{ {KEY} }}", id=("ID!", id), name=("String!", new_name))
    told(f"renamed key {name} to {new_name}", payload["entity"], as_json=as_json)


@key.command()
@_SERVICE
@_KEY
@with_api
@with_wait
def revoke(api: AdminApiClient, waiting: Waiting, service: str, name: str, as_json: bool) -> None:
    """Revoke a key for good; its sessions and flows end at once.

    \b
    example: klinket admin service key revoke ci runner --wait
    """
    found = find_key(api, service, name, active=True)
    payload = api.mutate("serviceAccountKeyRevoke", f"entity {{ {KEY} }}", id=("ID!", found["id"]))
    see = "" if waiting.seconds is not None else "; see: klinket admin cut list"
    wanted = f"key {found['keyId']}"
    waiting.tell(f"revoked key {name}{see}", payload["entity"], scope=lambda scope: scope == wanted, as_json=as_json)


@key.command()
@_SERVICE
@_KEY
@with_api
@with_wait
def delete(api: AdminApiClient, waiting: Waiting, service: str, name: str, as_json: bool) -> None:
    """Delete a revoked or expired key.

    \b
    example: klinket admin service key delete ci runner
    """
    found = find_key(api, service, name)
    wanted = f"key {found['keyId']}"
    api.mutate("serviceAccountKeyDelete", id=("ID!", found["id"]))
    waiting.tell(f"deleted key {name}", scope=lambda scope: scope == wanted, as_json=as_json)
