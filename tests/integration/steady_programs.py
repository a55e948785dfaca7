"""Programs that open new connections at a steady rate, and try again as programs do; and some whose connections live on."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: New connections a second.
RATE = float(os.environ.get("KLINKET_TEST_CONNECTS_PER_SECOND", "200"))
#: Seconds after which one program gives up.
PATIENCE = 20.0


@dataclass(slots=True)
class Program:
    """One program: when it began, when its first connection echoed (monotonic seconds), and the tries that failed before."""

    begun: float
    good: float | None = None
    failures: list[str] = field(default_factory=list)


class Steady:
    """Runs programs against `hosts` in turn through a SOCKS5 proxy."""

    def __init__(self, proxy: tuple[str, int], hosts: Sequence[str], port: int, rate: float = RATE) -> None:
        self._proxy = proxy
        self._hosts = hosts
        self._port = port
        self._rate = rate
        self.programs: list[Program] = []
        self._running: set[asyncio.Task[None]] = set()
        self._begin: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Steady:
        self._begin = asyncio.create_task(self._keep_beginning())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._begin is not None
        self._begin.cancel()
        await asyncio.gather(self._begin, return_exceptions=True)
        await asyncio.gather(*self._running)

    async def _keep_beginning(self) -> None:
        due = time.monotonic()
        for host in itertools.cycle(self._hosts):
            program = Program(time.monotonic())
            self.programs.append(program)
            task = asyncio.create_task(self._run(program, host))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            due = max(due + 1 / self._rate, time.monotonic() - 0.05)  # what was missed is not made up for
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _run(self, program: Program, host: str) -> None:
        while time.monotonic() < program.begun + PATIENCE:
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await dial(self._proxy, host, self._port)
                    try:
                        await echo(reader, writer)
                    finally:
                        writer.close()
                program.good = time.monotonic()
                return
            except (OSError, asyncio.IncompleteReadError) as error:
                program.failures.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.02)

    def since(self, begun: float, seconds: float) -> list[Program]:
        """Return the programs that began in a time."""
        return [one for one in self.programs if begun <= one.begun < begun + seconds]


async def dial(proxy: tuple[str, int], host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect through a SOCKS5 proxy; raises ConnectionError with its reply."""
    reader, writer = await asyncio.open_connection(*proxy)
    try:
        name = host.encode()
        writer.write(b"\x05\x01\x00" + b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port))
        answer = await reader.readexactly(12)
        if answer[3]:
            raise ConnectionError(f"SOCKS reply {answer[3]}")
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes = b"ping") -> None:
    """Send and get back; raises OSError or IncompleteReadError."""
    writer.write(text)
    if await reader.readexactly(len(text)) != text:
        raise ConnectionError("something else came back")


def waits(programs: Sequence[Program]) -> list[float]:
    """Return the seconds until each program's first good connection, in order; one without any counts as PATIENCE."""
    return sorted((one.good - one.begun) if one.good is not None else PATIENCE for one in programs)


def share(ordered: Sequence[float], percent: float) -> float:
    """Return the value below which that share of the values lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def connections_to(pid: int, port: int) -> int:
    """Return how many established TCP connections a process has to a port on IPv4."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))
        except OSError:
            continue
        if found is not None:
            inodes.add(found.group(1))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[9] in inodes and row[3] == "01" and int(row[2].split(":")[1], 16) == port for row in rows)
