"""What the outside of a captured machine runs, for the tests of host capture: look-alike hosts, a resolver, and a log of both.

Arguments: the log, the address of the resolver, those of the look-alikes, if any. TCP on port 80 of every address answers
`look-alike`; on port 81 it echoes; UDP on port 99 of the look-alikes answers `look-alike`. The resolver knows `public.example`,
over UDP cuts `long.example` short, and answers all other names with NXDOMAIN. Each connection, datagram and question is one
line of the log.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

PUBLIC_ADDRESS = "192.0.2.80"


class Log:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def say(self, line: str) -> None:
        self._file.write(line + "\n")


def resolve(log: Log, wire: bytes, *, udp: bool) -> bytes:
    query = dns.message.from_wire(wire)
    name = query.question[0].name.to_text().rstrip(".").lower()
    log.say(f"dns {name}")
    answer = dns.message.make_response(query)
    if name == "public.example":
        if query.question[0].rdtype == 1:
            answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", PUBLIC_ADDRESS))
    elif name == "long.example":
        if udp:
            answer.flags |= dns.flags.TC
        else:
            answer.answer.append(
                dns.rrset.from_text(query.question[0].name, 60, "IN", "TXT", *(f"{n}{'x' * 240}" for n in range(8)))
            )
    else:
        answer.set_rcode(dns.rcode.NXDOMAIN)
    return answer.to_wire(max_size=65_535)


class Resolver(asyncio.DatagramProtocol):
    def __init__(self, log: Log) -> None:
        self._log = log

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(resolve(self._log, data, udp=True), addr)  # type: ignore[attr-defined]


class LookAlike(asyncio.DatagramProtocol):
    def __init__(self, log: Log) -> None:
        self._log = log

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._log.say(f"udp {data.decode(errors='replace')}")
        self._transport.sendto(b"look-alike", addr)  # type: ignore[attr-defined]


async def main() -> None:
    log, resolver = Log(Path(sys.argv[1])), sys.argv[2]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        log.say(f"tcp {writer.get_extra_info('sockname')[0]}")
        writer.write(b"look-alike")
        await writer.drain()
        writer.close()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        log.say(f"tcp {writer.get_extra_info('sockname')[0]}")
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def names(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                out = resolve(log, wire, udp=False)
                writer.write(len(out).to_bytes(2) + out)
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    loop = asyncio.get_running_loop()
    if sys.argv[3:]:
        await asyncio.start_server(answer, "0.0.0.0", 80)
        await asyncio.start_server(answer, "::", 80)
        await asyncio.start_server(echo, "0.0.0.0", 81)
    await asyncio.start_server(names, resolver, 53)
    await loop.create_datagram_endpoint(lambda: Resolver(log), (resolver, 53))
    for address in sys.argv[3:]:  # each its own: the answer comes from the address that was asked
        await loop.create_datagram_endpoint(lambda: LookAlike(log), (address, 99))
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
