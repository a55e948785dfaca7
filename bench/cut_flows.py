"""Both ends of many flows for `bench.cut`: `target` says when each connection ended, `hold` opens flows through a client.

A flow begins with its tag (TAG_BYTES), which the target echoes. A target writes a line `TAG TIME HOW` for each that ended:
seconds since the epoch, and `reset` or `end`. No byte reaches the target after that.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from pathlib import Path

TAG_BYTES = 12
#: Connects of one holder at a time.
BATCH = 16
#: Seconds for one flow to open, or to echo.
SECONDS = 60.0
_Flow = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def target(out: Path, port: int, addresses: list[str]) -> None:
    """Echo at `port` of each address until killed."""
    with out.open("a", buffering=1) as told:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tag, how = b"", "end"
            try:
                tag = await reader.readexactly(TAG_BYTES)
                writer.write(tag)
                while data := await reader.read(4096):
                    writer.write(data)
            except asyncio.IncompleteReadError:
                pass
            except ConnectionError:
                how = "reset"
            told.write(f"{tag.decode() or '-'} {time.time():.6f} {how}\n")
            writer.close()

        servers = [await asyncio.start_server(serve, address, port, backlog=4096) for address in addresses]
        await asyncio.gather(*(server.serve_forever() for server in servers))


async def _opened(socks: int, tag: str, host: str, port: int) -> _Flow:
    reader, writer = await asyncio.open_connection("127.0.0.1", socks)
    name = host.encode()
    writer.write(b"\x05\x01\x00")
    await reader.readexactly(2)
    writer.write(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port))
    answer = await reader.readexactly(10)
    if answer[1]:
        raise OSError(f"{host}: SOCKS reply {answer[1]}")
    writer.write(tag.encode())
    await reader.readexactly(TAG_BYTES)
    return reader, writer


async def hold(socks: int) -> None:
    """Open the flows of a JSON line on stdin ([tag, host, port]...) and hold them; then answer each further line.

    Said are how many were opened, and after each line the tags of those that still echo, as JSON.
    """
    loop = asyncio.get_running_loop()
    wanted = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    flows: dict[str, _Flow] = {}
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        opened = await asyncio.gather(*(asyncio.wait_for(_opened(socks, *one), SECONDS) for one in batch))
        flows |= {one[0]: flow for one, flow in zip(batch, opened, strict=True)}
    print(len(flows), flush=True)

    async def echoes(flow: _Flow) -> bool:
        reader, writer = flow
        try:
            writer.write(b"still here")
            return await asyncio.wait_for(reader.readexactly(10), SECONDS) == b"still here"
        except (OSError, EOFError, TimeoutError):
            return False

    while await loop.run_in_executor(None, sys.stdin.readline):
        living = await asyncio.gather(*map(echoes, flows.values()))
        print(json.dumps([tag for tag, lives in zip(flows, living, strict=True) if lives]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "target":
        asyncio.run(target(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
    else:
        asyncio.run(hold(int(sys.argv[2])))
