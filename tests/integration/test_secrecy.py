"""After real use, logs, database, write-ahead log and audit hold no private key, token or assertion."""

from __future__ import annotations

import json
import re
import sqlite3
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from klinket.cli.admin.api import AdminApiClient
from klinket.wire import access_token, assertion, cut_token, head_token, receipt_token, signing
from tests.integration.conftest import Loopback
from tests.integration.test_stolen_credentials import hold
from tests.integration.watched import wait_until

pytestmark = pytest.mark.alone

#: A signed JWT (assertion, grant, ticket, access token, proof, cut): three base64url parts, the first two JSON objects.
JWT = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}")
PRIVATE_KEY = b"PRIVATE KEY-----"
DATABASE = ("controller/klinket.db", "controller/klinket.db-wal", "controller/klinket.db-shm")
#: Columns with signed tokens.
SHOWN_TO_EVERYBODY = ("cuts.token", "cut_receipts.token", "audit_signatures.token")
#: The only files that may hold a private key: handed out to their owner, or a part's own identity.
WITH_A_PRIVATE_KEY = {
    "ci-runner.json", "ci-to-be-revoked.json",
    "office-1/identity.pem", "controller/relay/relay-certificate.pem",
}  # fmt: skip
#: Of a sink that nobody answers for.
PASSWORD = "a-long-password-of-a-sink"
#: Bytes below which a text can turn up by chance.
MIN_SECRET_BYTES = 20


def forms_of(secret: bytes) -> Iterator[bytes]:
    """Yield a secret as it is, in hexadecimal, and in base64, wherever in a longer text it begins."""
    yield secret
    yield secret.hex().encode()
    for shift, begin in enumerate((0, 2, 3)):
        inner = b64encode(bytes(shift) + secret)[begin:-4]  # without what depends on its neighbours
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def test_forms_are_found_inside_longer_texts() -> None:
    secret = bytes(range(200, 232))
    for before in (b"", b"a", b"ab", b"abc"):
        for text in (
            b64encode(before + secret + b"z"),
            urlsafe_b64encode(before + secret + b"zz"),
            (before + secret).hex().encode(),
        ):
            assert any(form in text for form in forms_of(secret))


@dataclass
class Secrets:
    """By secret: what it is, and the files that may hold it (relative to the deployment)."""

    known: dict[bytes, tuple[str, frozenset[str]]] = field(default_factory=dict)

    def add(self, what: str, secret: bytes | str, *may_hold: str) -> None:
        secret = secret.encode() if isinstance(secret, str) else secret
        assert len(secret) >= MIN_SECRET_BYTES, f"{what} is too short to be looked for"
        for form in forms_of(secret):
            self.known[form] = (what, frozenset(may_hold))

    def add_private_key(self, what: str, key: signing.PrivateKey, *may_hold: str) -> None:
        """Add a key as PEM holds it, line by line, and as a bare number."""
        for number, line in enumerate(signing.private_key_to_pem(key).strip().splitlines()[1:-1]):
            if len(line) >= MIN_SECRET_BYTES:
                self.add(f"{what}, line {number}", line, *may_hold)
        number = key.private_numbers().private_value
        self.add(f"{what}, the number", number.to_bytes(32, "big"), *may_hold)
        self.add(f"{what}, the number in decimal", str(number))


async def use_everything(loopback: Loopback, monkeypatch: pytest.MonkeyPatch, mark: str = "") -> Secrets:
    """Reach a resource, revoke a key, log in and attach with a session whose secrets are known; return all secrets.

    `mark`: of the names of what is made, which are taken once.
    """
    deployment = loopback.deployment
    secrets = Secrets()
    secrets.add("API token", deployment.api_token, "controller.log")
    with loopback.dial() as flow:
        loopback.echo(flow)
    revoked = deployment.add_key("ci", f"to-be-revoked{mark}")
    deployment.admin("service", "key", "revoke", "ci", f"to-be-revoked{mark}")
    made = deployment.admin("token", "create", f"scanner{mark}")
    secrets.add("another API token", made["token"])
    secrets.add("password of a sink", PASSWORD)
    given = {"name": f"mail{mark}", "kind": "SMTP", "streams": ["WARNINGS"], "address": "192.0.2.9:587",
             "sender": "k@example.com", "recipients": ["o@example.com"], "user": "klinket", "secret": PASSWORD}  # fmt: skip
    answer = AdminApiClient(deployment.url, deployment.api_token, str(deployment.authority)).extension.change(
        "sinkCreate",
        "mutation($name: String!, $kind: SinkKind!, $streams: [SinkStream!]!, $address: String, $sender: String,"
        " $recipients: [String!], $user: String, $secret: String) { sinkCreate(name: $name, kind: $kind, streams: $streams,"
        " address: $address, sender: $sender, recipients: $recipients, user: $user, secret: $secret) { ok error } }",
        **given,
    )
    assert answer["ok"]
    for path in (loopback.key, revoked):
        key = signing.private_key_from_pem(json.loads(path.read_text())["private_key"])
        secrets.add_private_key(f"private key of {path.name}", key, path.name)
    tokens = json.loads((deployment.directory / "office-1.json").read_text())
    for name in ("access_token", "refresh_token"):
        secrets.add(f"connector's {name}", tokens[name], "office-1.json")
    identity = signing.private_key_from_pem((deployment.directory / "office-1/identity.pem").read_text())
    secrets.add_private_key("connector's identity", identity, "office-1/identity.pem")
    secrets.add("master key", (deployment.state / "keys/master.key").read_bytes().strip(), "controller/keys/master.key")
    secrets.add("relay's token", (deployment.state / "relay/token").read_bytes().strip(), "controller/relay/token")

    def remember(module: Any, name: str, what: str) -> None:
        original = getattr(module, name)

        def remembering(*arguments: Any, **more: Any) -> str:
            token: str = original(*arguments, **more)
            secrets.add(what, token)
            return token

        monkeypatch.setattr(module, name, remembering)

    remember(assertion, "sign_assertion", "assertion")
    remember(access_token, "sign_proof", "proof")
    mine = await hold(loopback)
    await mine.link(mine.initiator(mine.session), mine.configuration)  # shows ticket and grant to relay and connector
    secrets.add("access token", mine.session.access_token)
    secrets.add_private_key("session key", mine.session.key)
    for grant in mine.configuration.grants:
        secrets.add("grant", grant.token)
    for ticket in mine.configuration.tickets:
        secrets.add("ticket", ticket.token)
    kinds = {what for what, _ in secrets.known.values()}
    assert {"assertion", "proof", "access token", "grant", "ticket"} <= kinds
    return secrets


def typ_of(token: bytes) -> str:
    """Return what a signed token is for, by its own word."""
    header = token.partition(b".")[0]
    return str(json.loads(urlsafe_b64decode(header + b"=" * (-len(header) % 4)))["typ"])


def files_of(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in root.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(root)), path.read_bytes()


def values_of(database: Path) -> Iterator[tuple[str, bytes]]:
    """Return every value of every table, as SQLite gives it: also what is split over pages."""
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        for (table,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
            cursor = connection.execute(f"select * from {table}")
            columns = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                for column, value in zip(columns, row, strict=True):
                    yield f"{table}.{column}", value if isinstance(value, bytes) else str(value).encode()


async def test_no_secret_rests_in_logs_database_or_audit(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = await use_everything(loopback, monkeypatch)
    database = loopback.deployment.state / "klinket.db"
    wait_until(lambda: any(name == "flow_events.event" for name, _ in values_of(database)), "no flow event was stored")
    wait_until(
        lambda: any(name == "cut_receipts.token" and value != b"None" for name, value in values_of(database)), "no receipt"
    )
    files = dict(files_of(loopback.deployment.directory))
    values = list(values_of(database))
    # What is signed to be shown to everybody concerned, and rests until then: it opens nothing. Read last: it knows them all.
    public = {value for name, value in values_of(database) if name in SHOWN_TO_EVERYBODY and value != b"None"}
    assert {typ_of(token) for token in public} >= {cut_token.TYP, receipt_token.TYP}

    assert {"client.log", "controller.log", "office-1.log", "controller/klinket.db", "controller/klinket.db-wal"} <= set(files)
    assert len(files["controller/klinket.db"]) + len(files["controller/klinket.db-wal"]) > 50_000
    for name, content in [*files.items(), *values]:
        for secret, (what, may_hold) in secrets.known.items():
            if name not in may_hold:
                assert secret not in content, f"{what} is in {name}"
        if name not in WITH_A_PRIVATE_KEY:
            assert PRIVATE_KEY not in content, f"a private key is in {name}"
        may_hold_cuts = name in (*DATABASE, *SHOWN_TO_EVERYBODY, "office-1/cuts.json")
        for token in JWT.findall(content):
            known = may_hold_cuts and any(token.startswith(cut) for cut in public)
            known = known or (name == "office-1/head.json" and typ_of(token) == head_token.TYP)
            assert known, f"a signed token is in {name}: {token[:60]!r}"
    assert files["controller.log"].count(loopback.deployment.api_token.encode()) == 1  # printed by the first start, on purpose


async def test_no_process_has_a_secret_in_its_arguments(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """security.md 8: any user may read the arguments of any process."""
    secrets = await use_everything(loopback, monkeypatch, "-2")
    folder = str(loopback.deployment.directory).encode()
    seen = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes()
        except OSError:
            continue  # it has ended
        if folder not in arguments:
            continue
        seen |= {word for word in (b"controller", b"connector", b"relay") if word in arguments.split(b"\0")}
        for secret, (what, _) in secrets.known.items():
            assert secret not in arguments, f"{what} is in the arguments of process {path.parent.name}"
    assert seen >= {b"controller", b"connector"}


async def test_files_with_secrets_are_their_owners_only(loopback: Loopback) -> None:
    root = loopback.deployment.directory
    for name in (*WITH_A_PRIVATE_KEY, *DATABASE, "office-1.json", "controller/keys/master.key", "controller/relay/token"):
        path = root / name
        if path.exists():
            assert path.stat().st_mode & 0o077 == 0, f"{name} can be read by others"
