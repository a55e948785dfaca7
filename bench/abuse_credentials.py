"""Credentials of the attackers of `./dev bench abuse`: forged ones, and stolen ones that are used beyond what an honest holder does."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from klinket.client.channel import ClientChannel
from klinket.client.login import log_in
from klinket.connector import enrol
from klinket.connector.config import load
from klinket.connector.state import ConnectorState
from klinket.net.certificate_request import certificate_request
from klinket.net.channel import controller_context
from klinket.net.clock import PeerClock
from klinket.wire import access_token, assertion, control, signing
from klinket.wire.key_file import KeyFile, parse_key_file
from klinket.wire.paths import LOGOUT_PATH, REVOKE_PATH
from klinket.wire.relay import ADMISSION_ID_BYTES, RelayHello, RelayRole, encode_ticket
from klinket.wire.ticket import TicketRole, sign_ticket
from klinket.wire.version import CONNECTOR_VERSION

if TYPE_CHECKING:
    from bench.abuse_attacks import Attack

#: Different forgeries that are made before an attack begins, so that it costs its own side little.
FORGERIES = 200


@dataclass
class BadAssertions:
    """`made`: (unknown key, forged signature of a known key)."""

    url: str
    key_file: KeyFile

    def of(self, login: str, logout: str, revoke: str) -> Iterator[tuple[str, bytes]]:
        """Yield (path, body): mostly logins, of keys that do not exist and of one that does, signed by somebody else."""
        session = signing.generate_private_key()
        request = certificate_request(session)
        jkt = signing.thumbprint(session.public_key())
        typ = {login: assertion.LOGIN_TYP, logout: assertion.END_TYP, revoke: assertion.REVOKE_TYP}
        forger = signing.generate_private_key()
        for number in range(FORGERIES):
            path = {8: logout, 9: revoke}.get(number % 10, login)
            kid = self.key_file.key_id if number % 2 else f"unknown-{number}"
            token = assertion.sign_assertion(
                signing.SigningKey(kid, forger), self.key_file.service_account_id, self.url + path, jkt,
                now=time.time(), jti=urlsafe_b64encode(os.urandom(16)).decode(), typ=typ[path],
            )  # fmt: skip
            if number % 20 == 0:
                token = "no.assertion." + "x" * 1000
            yield path, json.dumps({"grant_type": assertion.GRANT_TYPE, "assertion": token, "certificate_request": request}).encode()


def bad_assertions(url: str, key: str) -> BadAssertions:
    """Return forgeries in the name of a key file's owner."""
    return BadAssertions(url, parse_key_file(Path(key).read_bytes()))


def enrolments(tokens: str) -> list[bytes]:
    """Return bodies with tokens nobody has, and with stolen ones and a key of one's own."""
    stolen = json.loads(Path(tokens).read_text())
    request = certificate_request(signing.generate_private_key())
    bodies = []
    for number in range(FORGERIES):
        pair = stolen if number % 4 == 0 else {"access_token": f"kl_ca_{number:048d}", "refresh_token": f"kl_cr_{number:048d}"}
        body = {name: pair[name] for name in ("access_token", "refresh_token")}
        bodies.append(json.dumps(body | {"certificate_request": request, "version": CONNECTOR_VERSION}).encode())
    return bodies


async def tickets(key: str) -> list[tuple[str, bytes]]:
    """Return (kind, what is sent to the relay). The replayed one is real: of a session of the key's own."""
    key_file = parse_key_file(Path(key).read_bytes())
    context = controller_context(key_file.controller_ca)
    session = await log_in(key_file, context)
    got: asyncio.Future[control.ClientConfiguration] = asyncio.get_running_loop().create_future()

    def take(configuration: control.ClientConfiguration) -> None:
        if not got.done():
            got.set_result(configuration)

    channel = asyncio.create_task(
        ClientChannel(f"https://{key_file.network}", context, PeerClock(), take, lambda _: None).attach(session)
    )
    try:
        configuration = await asyncio.wait_for(got, 10)
    finally:
        channel.cancel()
        await asyncio.gather(channel, return_exceptions=True)
    relay = configuration.relays[0].id
    real = next(one.token for one in configuration.tickets if one.relay == relay)
    header = signing.unverified_header(real)
    forger = signing.SigningKey(str(header["kid"]), signing.generate_private_key())

    def forged(number: int, ago: float = 0.0) -> str:
        return sign_ticket(
            forger, network=configuration.network, role=TicketRole.CLIENT, holder=session.id, relay=relay,
            connectors=[one.id for one in configuration.connectors], now=time.time() - ago, lifetime=3600, id=f"forged-{number}",
        )  # fmt: skip

    frames: list[tuple[str, bytes]] = []
    for number in range(FORGERIES // 4):
        hello = RelayHello(RelayRole.CLIENT, os.urandom(ADMISSION_ID_BYTES), number + 1, 1).sign(os.urandom(32))
        frames += [
            ("forged", encode_ticket(forged(number))),
            ("replayed", encode_ticket(real)),
            ("expired", encode_ticket(forged(number, ago=7200))),
            ("hello", hello),
        ]
    return frames


class StolenConnector:
    """What was taken of a connector: its identity key and its tokens."""

    def __init__(self, url: str, key: signing.PrivateKey, credentials: enrol.Credentials, authority: str | None) -> None:
        self._url = url
        self._key = key
        self._credentials = credentials
        self._context = controller_context(authority)

    @classmethod
    async def enrol(cls, tokens: str, state: str) -> StolenConnector:
        """Enrol as that connector, with its own key."""
        config = load(Path(tokens), None, None, Path(state))
        key = ConnectorState(Path(state)).identity_key()
        credentials = await enrol.enrol(config, key, controller_context(config.controller_ca))
        return cls(config.controller, key, credentials, config.controller_ca)

    async def _attach(self, attack: Attack) -> ClientConnection:
        sock = socket.create_connection(("127.0.0.1", attack.ports["controller"]), 5, (attack.source, 0))
        sock.setblocking(False)
        connection = await connect(
            self._url.replace("https:", "wss:") + control.CHANNEL_PATH, sock=sock, ssl=self._context,
            compression=None, max_size=control.MAX_CONTROL_BYTES, proxy=None, ping_interval=None, close_timeout=1,
        )  # fmt: skip
        challenge = control.decode_to_connector(await connection.recv())
        assert isinstance(challenge, control.Challenge)
        proof = access_token.sign_proof(self._key, challenge.nonce, now=challenge.time_ms / 1000)
        attach = control.Attach(access_token=self._credentials.access_token, proof=proof, version=CONNECTOR_VERSION)
        await connection.send(control.encode(attach))
        return connection

    async def attach_once(self, attack: Attack) -> str:
        """Attach, take the first message and go."""
        try:
            connection = await self._attach(attack)
            try:
                first = control.decode_to_connector(await connection.recv())
            finally:
                connection.transport.abort()
        except WebSocketException:
            return "closed"
        return f"refused: {first.code}" if isinstance(first, control.Refused) else "attached"

    async def flood(self, attack: Attack, rate: float) -> None:
        """Send messages at a rate, as far as the controller takes them."""
        event = control.FlowEvent(
            event="denied", flow="f" * 32, time_ms=0, session="s", service_account="a", key="k", resource=None,
            host="h" * 200, port=1, protocol="tcp",
        )  # fmt: skip
        for number in count(1):
            if time.monotonic() >= attack.until:
                return
            try:
                connection = await self._attach(attack)
                attack.outcomes["attached"] += 1
                reading = asyncio.create_task(self._read(connection, attack))
                try:
                    await self._send(connection, attack, rate, event, number)
                finally:
                    reading.cancel()
                    connection.transport.abort()
            except (WebSocketException, OSError, TimeoutError, ssl.SSLError):
                attack.outcomes["channel closed"] += 1
                await asyncio.sleep(0.1)

    async def _read(self, connection: ClientConnection, attack: Attack) -> None:
        async for text in connection:
            attack.outcomes[f"got {json.loads(text)['type']}"] += 1

    async def _send(self, connection: ClientConnection, attack: Attack, rate: float, event: control.FlowEvent, round: int) -> None:
        began = time.monotonic()
        for number in count(1):
            if time.monotonic() >= attack.until:
                return
            now_ms = int(time.time() * 1000)
            message: control.Message
            match number % 8:
                case 0:
                    message = control.FlowEvents(batch=now_ms * 1000 + number, events=[event] * 100)
                case 1:
                    message = control.Renew()
                case 2:
                    message = control.RenewCertificate(request=certificate_request(self._key))
                case 3:
                    message = control.CutReceipt(id=number, stopped_at_ms=now_ms, took_ms=1.0, token="x.y.z")
                case _:  # each says something else, which all clients have to be told
                    message = control.Heartbeat(sequence=number, time_ms=now_ms, relays=[number % 60], hostname="h" * 200)
            await connection.send(control.encode(message))
            attack.outcomes["sent"] += 1
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))


__all__ = ["LOGOUT_PATH", "REVOKE_PATH", "StolenConnector", "bad_assertions", "enrolments", "tickets"]
