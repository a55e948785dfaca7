"""A controller as `serve` puts it together: real store, real keys, the real app. Tests move its clock and speak to it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from examples.deployment import free_port
from klinket.controller import sealing, serve, trust, web
from klinket.controller.app import api_tokens
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import AuditRow
from klinket.controller.authority import AuthorityPurpose
from klinket.controller.composition import compose
from klinket.controller.config import ControllerConfig
from klinket.controller.database import PostgresAddress
from klinket.controller.store.engine import open_store
from klinket.controller.trust import KeyPurpose
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import ProtocolError
from klinket.net.certificate_request import certificate_request
from klinket.net.channel import controller_context, open_channel
from klinket.net.sockets import HostPort
from klinket.wire import access_token, assertion, control, signing
from klinket.wire.cut_token import sign_cut
from klinket.wire.key_file import LOGIN_PATH, KeyFile, parse_key_file
from klinket.wire.paths import ENROL_PATH, EXTENSION_PATH, GRAPHQL_PATH
from klinket.wire.relay import RELAY_CHANNEL_PATH
from tests.eventually import PATIENCE
from tests.unit.controller.postgres import everything

T = TypeVar("T")
M = TypeVar("M", bound=control.Message)
NETWORK = "acme"
GRANT_SECONDS = 120
#: Where requests come from, unless a test says otherwise (RFC 5737).
SOURCE = "192.0.2.7"


def everything_stored(database: Path | PostgresAddress) -> bytes:
    """Return all bytes of SQLite's files, or all values of PostgreSQL's tables."""
    if isinstance(database, PostgresAddress):
        return everything(database)
    return b"".join(path.read_bytes() for path in sorted(database.parent.glob(database.name + "*")))


@dataclass
class Session:
    """A logged-in client: its session key, and what the controller answered."""

    key: signing.PrivateKey
    answer: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.answer["session"])

    @property
    def token(self) -> str:
        return str(self.answer["access_token"])


@dataclass
class Enrolled:
    """An enrolled connector: its key, its tokens, and what the controller answered."""

    key: signing.PrivateKey
    tokens: dict[str, str]
    answer: dict[str, Any]

    @property
    def id(self) -> int:
        return int(self.answer["connector"])

    @property
    def token(self) -> str:
        return str(self.answer["access_token"])


class Running:
    """`offset`: seconds by which the controller's clock is ahead of this machine's. `settings`: of ControllerConfig."""

    def __init__(self, state: Path, postgres: PostgresAddress | None = None, *, host: str = "127.0.0.1", **settings: Any) -> None:
        self.offset = 0.0
        port = free_port()
        self.config = ControllerConfig(
            network=NETWORK,
            state=state,
            listen=HostPort("127.0.0.1", port),
            public_url=f"https://{host}:{port}",
            grant_seconds=GRANT_SECONDS,
            postgres=postgres,
            **{"api_reads_per_minute": 0, "api_writes_per_minute": 0, **settings},
        )
        self.master = sealing.load_or_make(state / "keys" / "master.key")
        self.store = open_store(self.config.database, self.clock)
        self.tokens: dict[tuple[str, ...], str] = {}

    def clock(self) -> float:
        return time.time() + self.offset

    async def open(self) -> None:
        """Make the trust, the app, and one API token per set of scopes that people use."""
        self.trust = await trust.load_or_make(self.store, self.master, NETWORK, self.clock, os.urandom)
        self.store.use_cut_signer(lambda cut: sign_cut(self.trust.signers[KeyPurpose.CUT], cut, network=NETWORK), GRANT_SECONDS)
        self.authority = self.trust.authorities[AuthorityPurpose.WEB].certificate_pem
        made = compose(self.config, self.store, self.trust, self.master, clock=self.clock, entropy=os.urandom)
        self.controller = made
        self.app, self.peers, self.dispatch = made.app, made.peers, made.dispatch
        for scopes in (("read",), ("write",), ("read", "write"), api_tokens.ALL_SCOPES):
            self.tokens[scopes] = await self.api_token(scopes)

    async def reopen_trust(self) -> None:
        """Read the keys anew, as a restart does; those that are too old are replaced."""
        self.trust = await trust.load_or_make(self.store, self.master, NETWORK, self.clock, os.urandom)

    @property
    def login_url(self) -> str:
        return self.config.public_url + LOGIN_PATH

    async def api_token(self, scopes: tuple[str, ...]) -> str:
        name = " and ".join(scopes)
        made = await self.store.write(lambda tx: api_tokens.create(tx, SYSTEM, name=name, scopes=scopes, entropy=os.urandom))
        return made[1]

    # ---- requests

    def http(self, source: str = SOURCE) -> httpx2.AsyncClient:
        """Return a client whose requests come from `source`."""
        transport = httpx2.ASGITransport(app=self.app, client=(source, 40_000))
        return httpx2.AsyncClient(transport=transport, base_url=self.config.public_url)

    async def post(self, path: str, body: Any, *, source: str = SOURCE, headers: dict[str, str] | None = None) -> httpx2.Response:
        async with self.http(source) as client:
            return await client.post(path, json=body, headers=headers)

    async def get(self, path: str, *, source: str = SOURCE, headers: dict[str, str] | None = None) -> httpx2.Response:
        async with self.http(source) as client:
            return await client.get(path, headers=headers)

    async def ask(
        self,
        query: str,
        variables: dict[str, Any] | None = None,
        *,
        scopes: tuple[str, ...] = api_tokens.ALL_SCOPES,
        extension: bool = False,
    ) -> dict[str, Any]:
        """Return the whole answer of the Admin API (or of the extension) to a document, errors included."""
        body = {"query": query, "variables": variables}
        path = EXTENSION_PATH if extension else GRAPHQL_PATH
        answer = await self.post(path, body, headers={"X-API-KEY": self.tokens[scopes]})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def query(self, query: str, *, extension: bool = False, **variables: Any) -> dict[str, Any]:
        """Return the data of an answer without errors."""
        answer = await self.ask(query, variables, extension=extension)
        assert "errors" not in answer, answer
        return dict(answer["data"])

    async def change(self, query: str, **variables: Any) -> dict[str, Any]:
        """Return the payload of a document with one mutation, which must have succeeded."""
        payload = await self.try_change(query, **variables)
        assert payload["ok"] is True, payload
        assert payload["error"] is None
        return payload

    async def try_change(self, query: str, **variables: Any) -> dict[str, Any]:
        """Return the payload of a document with one mutation."""
        (payload,) = (await self.query(query, **variables)).values()
        return dict(payload)

    # ---- what there is to look at

    async def read(self, query: Callable[[Transaction], T]) -> T:
        return await self.store.read(query)

    async def write(self, change: Callable[[Transaction], T]) -> T:
        return await self.store.write(change)

    async def audit(self) -> list[AuditRow]:
        """Return the audit, the oldest event first."""
        await self.controller.unproven_refusals.write()
        return await self.read(lambda tx: tx.audit.find())

    async def last_event(self) -> AuditRow:
        return (await self.audit())[-1]

    def everything_stored(self) -> bytes:
        """Return all bytes of the database's files, or all values of PostgreSQL's tables."""
        return everything_stored(self.config.database)

    # ---- an inventory, made as an admin makes it

    async def add_network(self, name: str = "office") -> str:
        payload = await self.change("mutation ($n: String!) { remoteNetworkCreate(name: $n) { ok error entity { id } } }", n=name)
        return str(payload["entity"]["id"])

    async def add_connector(self, network: str, name: str | None = None) -> str:
        query = "mutation ($r: ID!, $n: String) { connectorCreate(remoteNetworkId: $r, name: $n) { ok error entity { id } } }"
        return str((await self.change(query, r=network, n=name))["entity"]["id"])

    async def add_resource(self, network: str, name: str = "Database", address: str = "db.internal") -> str:
        payload = await self.change(
            "mutation ($r: ID!, $n: String!, $a: String!) "
            "{ resourceCreate(remoteNetworkId: $r, name: $n, address: $a) { ok error entity { id } } }",
            r=network,
            n=name,
            a=address,
        )
        return str(payload["entity"]["id"])

    async def add_account(self, name: str = "ci", resources: list[str] | None = None) -> str:
        query = "mutation ($n: String!, $r: [ID]) { serviceAccountCreate(name: $n, resourceIds: $r) { ok error entity { id } } }"
        return str((await self.change(query, n=name, r=resources))["entity"]["id"])

    async def grant(self, account: str, *resources: str) -> None:
        query = "mutation ($a: ID!, $r: [ID]) { serviceAccountUpdate(id: $a, addedResourceIds: $r) { ok error } }"
        await self.change(query, a=account, r=list(resources))

    async def add_key(self, account: str, days: int = 0, name: str = "runner") -> tuple[str, KeyFile]:
        """Return the id of a new key, and its key file."""
        payload = await self.change(
            "mutation ($a: ID!, $d: Int!, $n: String) "
            "{ serviceAccountKeyCreate(serviceAccountId: $a, expirationTime: $d, name: $n) { ok error token entity { id } } }",
            a=account,
            d=days,
            n=name,
        )
        return str(payload["entity"]["id"]), parse_key_file(payload["token"])

    async def revoke_key(self, key: str) -> None:
        await self.change("mutation ($k: ID!) { serviceAccountKeyRevoke(id: $k) { ok error } }", k=key)

    async def connector_tokens(self, connector: str) -> dict[str, str]:
        payload = await self.change(
            "mutation ($c: ID!) "
            "{ connectorGenerateTokens(connectorId: $c) { ok error connectorTokens { accessToken refreshToken } } }",
            c=connector,
        )
        return {
            "access_token": payload["connectorTokens"]["accessToken"],
            "refresh_token": payload["connectorTokens"]["refreshToken"],
        }

    # ---- logins and enrolments

    def login_body(self, key_file: KeyFile, session_key: signing.PrivateKey, **changed: Any) -> dict[str, Any]:
        """Return a login as klinket's client makes it; `changed`: signing_key, audience, now, jti, typ, jkt, request."""
        signer = changed.get("signing_key", key_file.private_key)
        signed = assertion.sign_assertion(
            signing.SigningKey(key_file.key_id, signer),
            changed.get("account", key_file.service_account_id),
            changed.get("audience", key_file.login_url),
            changed.get("jkt", signing.thumbprint(session_key.public_key())),
            now=changed.get("now", self.clock()),
            jti=changed.get("jti", urlsafe_b64encode(os.urandom(16)).decode()),
            typ=changed.get("typ", assertion.LOGIN_TYP),
        )
        return {
            "grant_type": assertion.GRANT_TYPE,
            "assertion": signed,
            "certificate_request": changed.get("request", certificate_request(session_key)),
            "client": {"version": "0.1.0", "hostname": "runner-1", "os": "Linux"},
        }

    async def log_in(self, key_file: KeyFile) -> Session:
        key = signing.generate_private_key()
        answer = await self.post(LOGIN_PATH, self.login_body(key_file, key))
        assert answer.status_code == 200, answer.text
        return Session(key, answer.json())

    async def enrol(self, tokens: dict[str, str], key: signing.PrivateKey | None = None) -> Enrolled:
        key = key or signing.generate_private_key()
        answer = await self.post(ENROL_PATH, {**tokens, "certificate_request": certificate_request(key)})
        assert answer.status_code == 200, answer.text
        return Enrolled(key, tokens, answer.json())

    # ---- live channels

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Serve over TLS on loopback, as `klinket controller` does."""
        await self.dispatch.start()
        async with web.serving(self.app, web.bind(self.config.listen), serve._web_context(self.config, self.trust)) as server:
            self.seats = server.seats
            yield
            await self.dispatch.aclose()
            await self.controller.unproven_refusals.aclose()

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[Channel]:
        """Open a live channel, and take its challenge."""
        context = controller_context(self.authority)
        url = self.config.public_url
        async with open_channel(url, control.CHANNEL_PATH, context, max_bytes=control.MAX_CONTROL_BYTES) as connection:
            channel = Channel(connection, self.clock)
            channel.challenge = await channel.take(control.Challenge)
            channel.nonce = channel.challenge.nonce
            yield channel

    @asynccontextmanager
    async def attached(self, who: Session | Enrolled) -> AsyncIterator[Channel]:
        """Open a live channel and attach."""
        async with self.channel() as channel:
            await channel.attach(who.token, who.key)
            yield channel

    @asynccontextmanager
    async def relay_channel(self, token: str) -> AsyncIterator[Channel]:
        """Open the live channel of a relay."""
        headers = {"Authorization": f"Bearer {token}"}
        context = controller_context(self.authority)
        async with open_channel(
            self.config.public_url, RELAY_CHANNEL_PATH, context, max_bytes=control.MAX_CONTROL_BYTES, headers=headers
        ) as connection:
            yield Channel(connection, self.clock)


class Channel:
    """The peer's end of a live channel."""

    def __init__(self, connection: ClientConnection, clock: Callable[[], float]) -> None:
        self.connection = connection
        self.nonce = ""
        self.challenge: control.Challenge | None = None
        self._clock = clock

    async def attach(self, token: str, key: signing.PrivateKey, *, nonce: str | None = None, only: Sequence[str] = ()) -> str:
        """Send Attach with a proof by `key`; return the proof."""
        proof = access_token.sign_proof(key, self.nonce if nonce is None else nonce, now=self._clock())
        await self.send(control.Attach(access_token=token, proof=proof, version="0.1.0", only=list(only)))
        return proof

    async def send(self, message: control.Message) -> None:
        await self.connection.send(control.encode(message))

    async def text(self) -> str:
        async with asyncio.timeout(PATIENCE):
            text = await self.connection.recv()
        assert isinstance(text, str)
        return text

    async def take(self, kind: type[M]) -> M:
        """Return the next message, which must be of this kind."""
        text = await self.text()
        try:
            message: control.Message = control.decode_to_client(text)
        except ProtocolError:
            message = control.decode_to_connector(text)
        assert isinstance(message, kind), text[:500]
        return message

    async def wait_for(self, kind: type[M]) -> M:
        """Return the next message of this kind; others are passed over."""
        tag = kind.__struct_config__.tag
        while True:
            text = await self.text()
            if json.loads(text)["type"] == tag:
                decode = control.decode_to_connector if kind in CONNECTORS_ONLY else control.decode_to_client
                message = decode(text)
                assert isinstance(message, kind)
                return message

    async def closed(self) -> int:
        """Return the code with which the controller closes the channel; what it still says is passed over."""
        try:
            while True:
                await self.text()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 1006

    async def is_alive(self) -> bool:
        """Return whether the controller still answers heartbeats here."""
        await self.send(control.Heartbeat(sequence=77, time_ms=0, version="1.80.0"))
        return (await self.wait_for(control.HeartbeatAnswer)).sequence == 77


CONNECTORS_ONLY: tuple[type[control.Message], ...] = (control.ConnectorConfiguration, control.Cut, control.FlowEventsStored)
