"""Many clients in one process, cheap enough to share a machine with the controller: real TLS, WebSocket, tokens and proofs.

What the controller gets is byte for byte what `klinket client` sends: attach, heartbeats, renewals, and coming back after the
channel's loss by the same delays. What differs is on this side only: no links, and frames made by hand (RFC 6455).
"""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

from klinket.net.backoff import Backoff
from klinket.wire import access_token, control, signing

#: Attachments under way at a time while the clients attach for the first time.
AT_ONCE = 40
#: Seconds for one to be answered.
PATIENCE_SECONDS = 20.0


class _Connection(asyncio.Protocol):
    """One WebSocket of a client; masks with zeros, as a test may."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.buffer = bytearray()
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        self.client.connection = self
        transport.write(self.client.fleet.opening)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.is_open:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self.buffer.startswith(b"HTTP/1.1 101"):
                self.transport.abort()
                return
            del self.buffer[: end + 4]
            self.is_open = True
        while (frame := self._frame()) is not None:
            opcode, payload = frame
            if opcode == 1:
                self.client.told(payload)
            elif opcode == 8:
                self.transport.close()
            elif opcode == 9:
                self.send(payload, opcode=10)

    def _frame(self) -> tuple[int, bytes] | None:
        if len(self.buffer) < 2:
            return None
        length, start = self.buffer[1] & 0x7F, 2
        if length == 126:
            if len(self.buffer) < 4:
                return None
            length, start = struct.unpack_from(">H", self.buffer, 2)[0], 4
        elif length == 127:
            if len(self.buffer) < 10:
                return None
            length, start = struct.unpack_from(">Q", self.buffer, 2)[0], 10
        if len(self.buffer) < start + length:
            return None
        opcode, payload = self.buffer[0] & 0xF, bytes(self.buffer[start : start + length])
        del self.buffer[: start + length]
        return opcode, payload

    def send(self, payload: bytes, opcode: int = 1) -> None:
        length = len(payload)
        size = bytes([0x80 | length]) if length < 126 else struct.pack(">BH", 0xFE, length)
        self.transport.write(bytes([0x80 | opcode]) + size + bytes(4) + payload)

    def connection_lost(self, _: Exception | None) -> None:
        self.client.lost(self)


class Client:
    """One session: attaches, and comes back by itself."""

    def __init__(self, fleet: Fleet, token: str, key: signing.PrivateKey, source: str) -> None:
        self.fleet, self.token, self.key, self.source = fleet, token, key, source
        self.backoff = Backoff()
        self.connection: _Connection | None = None
        self.began = self.back_at = self.lost_at = 0.0
        self.valid_until = 0.0
        self.tries = 0
        self.answered: asyncio.Future[None] | None = None
        self.sequence = 0
        self.refusals: list[str] = []
        self.renewal: asyncio.TimerHandle | None = None

    async def attach(self) -> bool:
        """Try once; returns whether a configuration came."""
        loop = asyncio.get_running_loop()
        self.answered = loop.create_future()
        self.began = time.monotonic()
        self.tries += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await loop.create_connection(
                    lambda: _Connection(self), "127.0.0.1", self.fleet.port,
                    ssl=self.fleet.context, server_hostname="127.0.0.1", local_addr=(self.source, 0),
                )  # fmt: skip
                await self.answered
        except (OSError, TimeoutError):
            if self.answered.done():
                self.answered.exception()  # it was lost before it was waited for
            if self.connection is not None:
                self.connection.transport.abort()
                self.connection = None
            return False
        return True

    def told(self, text: bytes) -> None:
        """Take one message of the controller."""
        message = control.decode_to_client(text.decode())
        if isinstance(message, control.Challenge):
            proof = access_token.sign_proof(self.key, message.nonce, now=message.time_ms / 1000)
            attach = control.Attach(access_token=self.token, proof=proof, version="0.1.0")
            self._send(control.encode(attach))
        elif isinstance(message, control.ClientConfiguration):
            now = time.monotonic()
            self.backoff.spread = message.spread_ms / 1000
            self.valid_until = now + (message.valid_until_ms - message.time_ms) / 1000
            if self.answered is not None and not self.answered.done():
                self.answered.set_result(None)
                self.back_at = now
            loop = asyncio.get_running_loop()
            if self.renewal is not None:
                self.renewal.cancel()
            renew = control.encode(control.Renew())
            self.renewal = loop.call_later(max(1.0, (message.renew_at_ms - message.time_ms) / 1000), self._send, renew)
        elif isinstance(message, control.Refused | control.SessionEnded):
            self.refusals.append(message.code)

    def _send(self, text: str) -> None:
        if self.connection is not None and not self.connection.transport.is_closing():
            self.connection.send(text.encode())

    def beat(self) -> None:
        """Send a heartbeat, when attached."""
        if not self.back_at:
            return
        self.sequence += 1
        self._send(control.encode(control.Heartbeat(sequence=self.sequence, time_ms=round(time.time() * 1000))))

    def lost(self, connection: _Connection) -> None:
        """The connection has ended; come back unless a try is under way, which then fails."""
        if self.answered is not None and not self.answered.done():
            self.answered.set_exception(ConnectionError("lost"))
        elif connection is self.connection and self.fleet.running:
            self.lost_at = time.monotonic()
            self.back_at = 0.0
            self.tries = 0
            self.refusals = []
            self.backoff.reset()
            self.fleet.coming_back(self)
        if connection is self.connection:
            self.connection = None

    async def come_back(self) -> None:
        """Try until attached."""
        while True:
            left = self.valid_until - time.monotonic()
            await asyncio.sleep(self.backoff.next(at_most=left / 2) if left > 0 else self.backoff.next())
            if await self.attach():
                return


class Fleet:
    """All clients of this process."""

    def __init__(self, port: int, authority: Path, sessions: Path, first: int) -> None:
        self.port = port
        self.running = True
        self.context = ssl.create_default_context(cafile=str(authority))
        self.opening = (
            f"GET {control.CHANNEL_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        self.tasks: set[asyncio.Task[None]] = set()
        self.clients = []
        for number, line in enumerate(sessions.read_text().splitlines(), first):
            token, pem = json.loads(line)
            source = f"127.{10 + number % 40}.{1 + number // 40 % 200}.1"
            self.clients.append(Client(self, token, signing.private_key_from_pem(pem), source))

    def coming_back(self, client: Client) -> None:
        """Begin to attach a client again."""
        task = asyncio.get_running_loop().create_task(client.come_back())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def attach_all(self) -> int:
        """Attach everybody for the first time; returns how many are attached."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(client: Client) -> None:
            async with places:
                while not await client.attach():
                    await asyncio.sleep(client.backoff.next())

        await asyncio.gather(*map(one, self.clients))
        return sum(client.connection is not None for client in self.clients)

    async def beat(self) -> None:
        """Send everybody's heartbeats, evenly over their period."""
        step = 20
        while True:
            for turn in range(step):
                for client in self.clients[turn::step]:
                    client.beat()
                await asyncio.sleep(control.HEARTBEAT_SECONDS / step)

    async def all_back(self) -> list[dict[str, object]]:
        """Wait until everybody was lost and is back; returns when each was lost, asked for the last time and was back."""
        while any(not client.lost_at or not client.back_at for client in self.clients):
            await asyncio.sleep(0.05)
        told = [
            {"lost": one.lost_at, "asked": one.began, "back": one.back_at, "tries": one.tries, "refused": one.refusals}
            for one in self.clients
        ]
        return told


async def serve(port: int, authority: Path, sessions: Path, first: int) -> None:
    """Obey lines on standard input: `attach`, `back`; each is answered by one line of JSON. The end of input ends it."""
    fleet = Fleet(port, authority, sessions, first)
    beating = asyncio.create_task(fleet.beat())
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        answer = await (fleet.attach_all() if line == "attach" else fleet.all_back())
        print(json.dumps(answer), flush=True)
    fleet.running = False
    beating.cancel()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))
