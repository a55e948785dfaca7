"""A whole client that captures the machine it runs on, until its standard input ends. The argument is the key file."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from klinket.client.capture.host.capture import HostCapture
from klinket.client.client import Client
from klinket.wire.key_file import parse_key_file


async def main() -> None:
    client = Client(parse_key_file(Path(sys.argv[1]).read_bytes()))
    await client.start()
    capture = HostCapture(client, lambda line: print(line, file=sys.stderr, flush=True))
    await capture.start()
    await capture.follow(client.resources)
    await client.wait_ready((), 20)
    print("online", flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ended = asyncio.ensure_future(reader.read())
    while not ended.done():
        await asyncio.wait([ended], timeout=0.1)
        await capture.follow(client.resources)
    await capture.aclose()
    await client.aclose()


uvloop.run(main())
