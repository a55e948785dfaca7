"""Many flows at a time: `serve PORT` echoes; `open HOST PORT COUNT` connects, echoes, says how many did, and waits for a line.

It does so with half of them, with all, and with all once more.
"""

from __future__ import annotations

import asyncio
import sys

#: Seconds for everything of one flow: the queue holds fewer SYNs than there are flows, and the kernel repeats the others.
SECONDS = 60.0
#: Connects at a time: few, so that what is measured is flows, and not what opening many at once takes for a moment.
BATCH = 10
Flow = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def serve(port: int) -> None:
    """Echo until killed."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(echo, "0.0.0.0", port, backlog=4096) as server:
        await server.serve_forever()


async def once(flow: Flow) -> bool:
    """Return whether a flow echoes."""
    reader, writer = flow
    writer.write(b"ping")
    return await asyncio.wait_for(reader.readexactly(4), SECONDS) == b"ping"


async def connect(host: str, port: int, count: int) -> None:
    """Open flows and hold them; a connect that fails ends the program."""

    async def one() -> Flow:
        return await asyncio.wait_for(asyncio.open_connection(host, port), SECONDS)

    flows: list[Flow] = []
    for wanted in (count // 2, count, count):
        while len(flows) < wanted:
            flows += await asyncio.gather(*(one() for _ in range(min(BATCH, wanted - len(flows)))))
        results = await asyncio.gather(*map(once, flows), return_exceptions=True)
        print(sum(result is True for result in results), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        asyncio.run(connect(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
