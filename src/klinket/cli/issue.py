"""`klinket issue`: tokens made on the controller's own machine, by whoever may write its state folder."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from klinket.cli import database, roles, served
from klinket.domain.errors import InvalidInput

if TYPE_CHECKING:
    from klinket.controller.app.ports import Transaction
    from klinket.controller.database import PostgresAddress

_STATE = click.option("--state", type=click.Path(path_type=Path), help="The controller's state folder.")


@click.group()
def issue() -> None:
    """Issue tokens on the controller's own machine; it may be running."""


#: What is printed for people, and the same for scripts.
Issued = tuple[str, dict[str, Any]]


def _issue(state: Path | None, given: database.Given, make: Callable[[Transaction], Issued], *, as_json: bool) -> None:
    from klinket.controller.store.engine import open_store
    from klinket.net import clock

    there: Path | PostgresAddress | None = given.address()
    if there is None:
        if state is None:
            raise InvalidInput("--state", "--state is missing", hint="or give --database, as to `klinket controller`")
        there = state / "klinket.db"
        if not there.exists():
            hint = "give the --state of `klinket controller`, which makes it at its first start"
            raise InvalidInput("--state", f"no controller's database in {state}", hint=hint)
    store = open_store(there, clock.wall, as_guest=True)
    try:
        text, document = asyncio.run(store.write(make))
    finally:
        store.close()
    roles.show(text, document, as_json=as_json)


@issue.command("api-token")
@click.argument("name")
@_STATE
@database.options
@roles.JSON_OPTION
def api_token(name: str, state: Path | None, given: database.Given, as_json: bool) -> None:
    """Print a new API token with all scopes, for example when the one of the first start was lost.

    \b
    example: klinket issue api-token recovery --state /var/lib/klinket
    """
    from klinket.controller.app import api_tokens
    from klinket.domain.audit import SYSTEM
    from klinket.net.clock import entropy

    def make(tx: Transaction) -> Issued:
        row, token = api_tokens.create(tx, SYSTEM, name=name, scopes=api_tokens.ALL_SCOPES, entropy=entropy)
        return token, {"name": row.name, "token": token}

    _issue(state, given, make, as_json=as_json)


@issue.command("accept-head")
@_STATE
@click.option("--yes", is_flag=True, help="Do not ask; needed without a terminal.")
@database.options
@roles.JSON_OPTION
def accept_head(state: Path | None, yes: bool, given: database.Given, as_json: bool) -> None:
    """Say that a restored backup is the network's state from now on; until then the controller grants nothing.

    Run it after every restore. What was revoked, disabled or deleted after the backup has come back: look at that first.

    \b
    example: klinket issue accept-head --state /var/lib/klinket --yes
    """
    from klinket.controller.app.audit import controller_target
    from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent

    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(
                "--yes", "nobody is there to be asked", hint="look at what came back with the backup, then repeat it with --yes"
            )
        click.confirm(
            "What was revoked or deleted after the backup works again from now on. Have you looked at it?",
            abort=True,
            err=as_json,
        )

    def accept(tx: Transaction) -> Issued:
        before = tx.head()
        epoch, revision = tx.begin_epoch()
        detail = {"before": list(before), "head": [epoch, revision]}
        tx.record(AuditEvent(AuditAction.EDIT, SYSTEM, (controller_target("head"),), detail))
        text = f"accepted: epoch {epoch}, revision {revision}; connectors and clients follow within 10 s"
        return text, {"ok": True, "epoch": epoch, "revision": revision}

    _issue(state, given, accept, as_json=as_json)


@issue.command("relay-token")
@click.argument("name")
@_STATE
@database.options
@roles.JSON_OPTION
def relay_token(name: str, state: Path | None, given: database.Given, as_json: bool) -> None:
    """Print a new token for the relay NAME, which is made if it is new; an earlier token of it is dead.

    \b
    example: klinket issue relay-token frankfurt-1 --state /var/lib/klinket > relay-token
    """
    from klinket.controller.app import relays
    from klinket.domain.audit import SYSTEM
    from klinket.net.clock import entropy

    def make(tx: Transaction) -> Issued:
        row, token = relays.create_or_replace(tx, SYSTEM, name=name, entropy=entropy)
        return token, {"name": row.name, "token": token}

    _issue(state, given, make, as_json=as_json)


@issue.command("admin-link")
@click.argument("email")
@_STATE
@database.options
@roles.JSON_OPTION
def admin_link(email: str, state: Path | None, given: database.Given, as_json: bool) -> None:
    """Print a one-time link with which EMAIL becomes an admin of the console, or gets in again.

    It works for 24 hours. Once it is used, the earlier password, second factors and sessions of that user are gone. With
    --database and without --state it is the code alone: enter it at /console/sign-in/link.

    \b
    example: klinket issue admin-link ada@example.com --state /var/lib/klinket
    """
    from klinket.controller.app import sign_in_links
    from klinket.domain.audit import SYSTEM
    from klinket.net.clock import entropy

    url = None if state is None else served.public_url(state)

    def make(tx: Transaction) -> Issued:
        code = sign_in_links.admin_link(tx, SYSTEM, email, entropy)
        link = None if url is None else sign_in_links.address_of(url, code)
        return link or code, {"email": email, "link": link, "code": code}

    _issue(state, given, make, as_json=as_json)


@issue.command("signing-key")
@click.argument("purpose")
@_STATE
@click.option("--master-key-file", type=click.Path(path_type=Path), help="As for `klinket controller`; in --state by default.")
@click.option("--withdraw", metavar="KID", help="Take this key for grants out of use at once: somebody else may have it.")
@database.options
@roles.JSON_OPTION
def signing_key(
    purpose: str,
    state: Path | None,
    master_key_file: Path | None,
    withdraw: str | None,
    given: database.Given,
    as_json: bool,
) -> None:
    """Make a new signing key for PURPOSE: access, grant, ticket, cut, head or audit.

    Everybody who verifies is told of it first; it signs after 5 minutes. What the key before it signed stays valid.

    With --withdraw KID (for grants only) what the key KID signed stops to count within seconds, and everybody gets fresh grants:
    live flows go on. Its id is in the console, and at /.well-known/jwks.json.

    \b
    example: klinket issue signing-key grant --state /var/lib/klinket
    example: klinket issue signing-key grant --withdraw grant-5f2c9a0d1b7e4c36 --state /var/lib/klinket
    """
    from klinket.controller import sealing
    from klinket.controller.app import signing_keys
    from klinket.domain.audit import SYSTEM
    from klinket.net.clock import entropy

    wanted = signing_keys.parse_purpose(purpose)
    if state is None and master_key_file is None:
        raise InvalidInput("--state", "--state is missing: the master key is there", hint="or give --master-key-file")
    path = master_key_file or (state or Path()) / "keys" / "master.key"

    def make(tx: Transaction) -> Issued:
        master = sealing.load_or_make(path, may_make=False)
        for row in signing_keys.verifying(tx, wanted):
            master.open(row.sealed, f"signing key {row.kid}")  # what the controller cannot open would stop it
        if withdraw is not None:
            successor = signing_keys.withdraw(tx, SYSTEM, withdraw, seal=master.seal, entropy=entropy)
            new = None if successor is None else successor.kid
            return f"withdrew {withdraw}" + (f"; made {new}" if new else ""), {"withdrew": withdraw, "made": new}
        made = signing_keys.rotate(tx, SYSTEM, wanted, seal=master.seal, entropy=entropy)
        text = f"made {made.kid}; it signs in {signing_keys.PUBLISHED_MS // 60_000} min"
        return text, {"made": made.kid, "signs_in_seconds": signing_keys.PUBLISHED_MS // 1000}

    _issue(state, given, make, as_json=as_json)
