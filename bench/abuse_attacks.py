"""The attacks of `./dev bench abuse`: each at a fixed rate, from one address. `python -m bench.abuse_attacks NAME`.

Standard input says what is attacked (JSON, see bench.abuse); standard output tells at the end what came back, counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import abuse_console as console
from bench import abuse_credentials as stolen
from klinket.net.descriptors import raise_limit
from klinket.wire.control import CHANNEL_PATH
from klinket.wire.key_file import LOGIN_PATH
from klinket.wire.paths import ENROL_PATH, EXTENSION_PATH, GRAPHQL_PATH, LOGOUT_PATH, REFLECT_PATH, REVOKE_PATH
from klinket.wire.relay import ADMISSION_PROTOCOL

#: Attempts under way at a time; further ones are left out and counted.
MAX_UNDER_WAY = 400
#: Seconds an attempt waits for an answer.
ANSWER_SECONDS = 8.0


@dataclass
class Attack:
    """What is attacked, for how long, and what came of it. `ports`: by name; `source`: the attacker's address."""

    ports: dict[str, int]
    source: str
    seconds: float
    given: dict[str, Any]
    outcomes: Counter[str] = field(default_factory=Counter)
    #: Seconds after which connections of each port were closed.
    closed: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    held: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    most_held: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.seconds
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.context.set_alpn_protocols([ADMISSION_PROTOCOL, "http/1.1"])  # what a relay asks for; the controller does not mind

    async def dial(self, port: str, tls: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.ports[port], ssl=self.context if tls else None, local_addr=(self.source, 0), limit=1 << 20
        )

    async def at_rate(self, rate: float, attempt: Callable[[int], Awaitable[str]]) -> None:
        """Begin so many attempts a second; what each says is counted."""
        under_way: set[asyncio.Task[None]] = set()

        async def count(number: int) -> None:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    said = await attempt(number)
            except TimeoutError:
                said = "no answer"
            except (OSError, EOFError, ssl.SSLError):
                said = "closed"
            self.outcomes[said] += 1

        begun, began = 0, time.monotonic()
        while (now := time.monotonic()) < self.until:
            due = int((now - began) * rate)
            for number in range(begun, due):
                if len(under_way) >= MAX_UNDER_WAY:
                    self.outcomes["left out"] += 1
                    continue
                task = asyncio.create_task(count(number))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            begun = max(begun, due)
            await asyncio.sleep(0.01)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def hold(self, port: str, first: bytes, drip: bytes, tls: bool = False) -> None:
        """Hold one connection: `first`, then a byte of `drip` a second; note when it is closed."""
        began = time.monotonic()
        try:
            reader, writer = await self.dial(port, tls)
        except OSError:
            self.outcomes[f"{port}: not accepted"] += 1
            return
        self.held[port] += 1
        self.most_held[port] = max(self.most_held[port], self.held[port])
        try:
            writer.write(first)
            ended = asyncio.ensure_future(_to_the_end(reader))
            at = 0
            while not ended.done() and time.monotonic() < self.until:
                await asyncio.wait([ended], timeout=1.0)
                if drip:
                    writer.write(drip[at % len(drip) : at % len(drip) + 1])
                    at += 1
            if ended.done():
                self.closed[port].append(time.monotonic() - began)
            ended.cancel()
        except OSError:
            self.closed[port].append(time.monotonic() - began)
        finally:
            self.held[port] -= 1
            writer.close()


async def _to_the_end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(4096):
            pass


# ---- connections that say little


def client_hello(name: str) -> bytes:
    """Return the first flight of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


#: What a port's protocol begins with, of which a slow peer sends a byte a second.
def begins(port: str) -> bytes:
    if port in ("controller", "relay"):
        return client_hello("localhost")
    beginnings = {"http": b"CONNECT echo:1 HTTP/1.1\r\n", "socks": b"\x05\x01\x00\x05\x01\x00\x03"}
    return beginnings.get(port, b"GET /metrics HTTP/1.1\r\n")


async def slow(attack: Attack) -> None:
    """Drip a hello, a byte a second, over so many connections of each port; closed ones are made again."""

    async def again(port: str) -> None:
        while time.monotonic() < attack.until:
            await attack.hold(port, b"", begins(port))

    await asyncio.gather(*(again(port) for port in attack.ports for _ in range(attack.given["per_port"])))


async def silent(attack: Attack) -> None:
    """Open connections on every port at a rate, say nothing and keep them."""
    holding: set[asyncio.Task[None]] = set()

    async def one(number: int) -> str:
        port = list(attack.ports)[number % len(attack.ports)]
        task = asyncio.create_task(attack.hold(port, b"", b""))
        holding.add(task)
        task.add_done_callback(holding.discard)
        return "opened"

    await attack.at_rate(attack.given["rate"], one)
    for task in holding:
        task.cancel()
    await asyncio.gather(*holding, return_exceptions=True)


# ---- what is no protocol, or too much of one


async def say(attack: Attack, port: str, data: bytes, tls: bool = False) -> str:
    """Send `data` and return how the connection ended: its first answered line, or how it was closed."""
    reader, writer = await attack.dial(port, tls)
    try:
        writer.write(data)
        with contextlib.suppress(OSError):
            await writer.drain()
        answer = await reader.read(4096)
        if not answer:
            return f"{port}: closed"
        if answer.startswith(b"HTTP/1.1 "):
            return f"{port}: {answer[9:12].decode()}"
        return f"{port}: answered {len(answer)} bytes" if port != "relay" else f"relay: answered {answer[0]}"
    finally:
        writer.close()


def http(path: str, body: bytes, *headers: str, length: int | None = None, method: str = "POST") -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json", "Connection: close", *headers]
    head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def upgrade(path: str) -> bytes:
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    head = (f"GET {path} HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade", key, "Sec-WebSocket-Version: 13")
    return "\r\n".join(head).encode() + b"\r\n\r\n"


def message(text: bytes, announced: int | None = None) -> bytes:
    """Return a masked WebSocket text message; `announced`: the length it claims."""
    return b"\x81\xff" + struct.pack(">Q", len(text) if announced is None else announced) + b"\0\0\0\0" + text


async def garbage(attack: Attack) -> None:
    """Random bytes, broken and oversized messages, one kind after another, at every port."""
    noise = os.urandom(4096)
    big = 1 << 20
    kinds: list[Callable[[], Awaitable[str]]] = [
        *(lambda port=port: say(attack, port, noise) for port in attack.ports),
        *(lambda port=port: say(attack, port, b"A" * big) for port in attack.ports),
        *(lambda port=port: say(attack, port, b"\x16\x03\x01\xff\xff" + noise * 16) for port in attack.ports),
        lambda: say(attack, "controller", noise, tls=True),
        lambda: say(attack, "controller", b"GET /" + b"a" * big + b" HTTP/1.1\r\n\r\n", tls=True),
        lambda: say(attack, "controller", b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * big, tls=True),
        lambda: say(attack, "controller", b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 100_000, tls=True),
        lambda: say(attack, "controller", http(LOGIN_PATH, b"[" * big), tls=True),
        lambda: say(attack, "controller", http(LOGIN_PATH, b"[" * 200_000), tls=True),
        lambda: say(attack, "controller", http(LOGIN_PATH, b"{", length=1 << 40), tls=True),
        lambda: say(attack, "controller", upgrade(CHANNEL_PATH) + message(noise), tls=True),
        lambda: say(attack, "controller", upgrade(CHANNEL_PATH) + message(b"x" * 65_536, 1 << 40), tls=True),
        lambda: say(attack, "relay", b"\xff\xff" + noise * 16, tls=True),
        lambda: say(attack, "connector", noise[:32] + b"\x16" + noise),
        lambda: say(attack, "http", b"CONNECT " + b"a" * big + b":1 HTTP/1.1\r\n\r\n"),
        lambda: say(attack, "socks", b"\x05\xff" + noise),
    ]
    await attack.at_rate(attack.given["rate"], lambda number: kinds[number % len(kinds)]())


async def datagrams(attack: Attack) -> None:
    """Send noise to the connector's UDP port at a rate."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((attack.source, 0))
    sizes = [os.urandom(size) for size in (1, 16, 48, 1200, 1400, 9000, 65_000)]
    sent, began = 0, time.monotonic()
    while (now := time.monotonic()) < attack.until:
        due = int((now - began) * attack.given["rate"])
        while sent < due:
            with contextlib.suppress(OSError):
                sock.sendto(sizes[sent % len(sizes)], ("127.0.0.1", attack.ports["connector"]))
            sent += 1
        await asyncio.sleep(0.005)
    attack.outcomes["sent, unanswered"] = sent
    sock.close()


# ---- without, and with bad, credentials


async def post(attack: Attack, requests: Sequence[tuple[str, bytes, tuple[str, ...]]]) -> None:
    async def one(number: int) -> str:
        path, body, headers = requests[number % len(requests)]
        return (await say(attack, "controller", http(path, body, *headers), tls=True)).removeprefix("controller: ")

    await attack.at_rate(attack.given["rate"], one)


async def logins(attack: Attack) -> None:
    """Bad logins: unknown keys, a known key's id with a forged signature, no assertion, bad logouts and revocations."""
    bodies = stolen.bad_assertions(attack.given["url"], attack.given["key"])
    await post(attack, [(path, body, ()) for path, body in bodies.of(LOGIN_PATH, LOGOUT_PATH, REVOKE_PATH)])


async def enrolments(attack: Attack) -> None:
    """Bad enrolments: tokens nobody has, stolen ones with another key; meetings nobody has called."""
    bodies = stolen.enrolments(attack.given["tokens"])
    await post(attack, [(ENROL_PATH, body, ()) for body in bodies] + [(REFLECT_PATH, b'{"token": "none"}', ())])


async def graphql(attack: Attack) -> None:
    """GraphQL without a token and with bad ones."""
    body = json.dumps({"query": "{ serviceAccounts { edges { node { id } } } }"}).encode()
    bad = ("X-API-KEY: kl_api_" + "a" * 48,)
    await post(attack, [(path, body, headers) for path in (GRAPHQL_PATH, EXTENSION_PATH) for headers in ((), bad)])


async def documents(attack: Attack) -> None:
    """Deep, wide, long and costly documents of somebody with a valid token."""
    nested = "{ id serviceAccount " * 400 + "{ id }" + " }" * 400
    deep = "{ serviceAccounts { edges { node { keys { edges { node " + nested + "}}}}}}"
    wide = "{" + " ".join(f"a{number}: serviceAccounts {{ edges {{ node {{ id }} }} }}" for number in range(1500)) + "}"
    pages = "{ resources(first: 500) { edges { node { remoteNetwork { resources(first: 500) { edges { node { id } } } } } } } }"
    spread = "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }"
    names = '","'.join("x" * 20_000)
    listed = '{ resources(filter: {name: {in: ["' + names + '"]}}) { edges { node { id } } } }'
    texts = [deep, wide, "#" * 200_000, "{" * 60_000, pages, spread, listed]
    token = (f"X-API-KEY: {attack.given['api_token']}",)
    await post(attack, [(GRAPHQL_PATH, json.dumps({"query": text}).encode(), token) for text in texts])


async def guesses(attack: Attack) -> None:
    """Guess passwords at the console's sign-in, of somebody there is and of others."""

    async def one(number: int) -> str:
        said = await say(attack, "controller", console.guess(attack.given["url"], number), tls=True)
        return said.removeprefix("controller: ")

    await attack.at_rate(attack.given["rate"], one)


async def forms(attack: Attack) -> None:
    """Send the console forms that are too big, at a rate, and others a byte a second over so many connections."""
    begun = console.form(attack.given["url"], console.SIGN_IN, b"email=", length=10_000)
    big = console.big_forms(attack.given["url"])

    async def again() -> None:
        while time.monotonic() < attack.until:
            await attack.hold("controller", begun, b"a", tls=True)

    async def one(number: int) -> str:
        return (await say(attack, "controller", big[number % len(big)], tls=True)).removeprefix("controller: ")

    slowly = [asyncio.create_task(again()) for _ in range(attack.given["held"])]
    await attack.at_rate(attack.given["rate"], one)
    await asyncio.gather(*slowly)


# ---- with stolen credentials


async def tickets(attack: Attack) -> None:
    """Tickets at the relay: forged, of another kind, replayed (a real one, again and again), and hellos of no admission."""
    frames = await stolen.tickets(attack.given["key"])

    async def one(number: int) -> str:
        kind, data = frames[number % len(frames)]
        return f"{kind}: {(await say(attack, 'relay', data, tls=kind != 'hello')).removeprefix('relay: ')}"

    await attack.at_rate(attack.given["rate"], one)


async def storm(attack: Attack) -> None:
    """Attach with a stolen connector's key and token at a rate; each displaces the one before, and the real one."""
    connector = await stolen.StolenConnector.enrol(attack.given["tokens"], attack.given["state"])

    async def one(_: int) -> str:
        return await connector.attach_once(attack)

    await attack.at_rate(attack.given["rate"], one)


async def messages(attack: Attack) -> None:
    """Attach with a stolen connector's key, and send messages at a rate; when it is closed, attach again."""
    connector = await stolen.StolenConnector.enrol(attack.given["tokens"], attack.given["state"])
    await connector.flood(attack, attack.given["rate"])


ANYBODY = (slow, silent, garbage, datagrams, logins, enrolments, graphql, guesses, forms)
ATTACKS = {one.__name__: one for one in (*ANYBODY, documents, tickets, storm, messages)}


def main() -> None:
    """Run one attack and print what came of it."""
    raise_limit()
    os.nice(10)
    given = json.loads(sys.stdin.readline())

    async def run() -> Attack:
        attack = Attack(given.pop("ports"), given.pop("source"), given.pop("seconds"), given)
        await ATTACKS[sys.argv[1]](attack)
        return attack

    attack = asyncio.run(run())
    closed = {port: [round(min(times), 1), round(max(times), 1), len(times)] for port, times in attack.closed.items()}
    print(json.dumps({"outcomes": attack.outcomes, "closed_after": closed, "most_held": attack.most_held}))


if __name__ == "__main__":
    main()
