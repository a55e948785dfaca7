"""A process that captures the machine it runs on, told what to do by lines of JSON. For the tests of host capture.

Granted resources echo what they get. `{"grant": [...]}`, `{"refuse": [host, failure]}`, `{"state": true}`, `{"close": true}`;
each is answered with one line. The argument is JSON: `fast`, `sources`, `users`, `own_hosts`, `resolver_files`, `backend`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from klinket.client.capture import direct
from klinket.client.capture.host.capture import HostCapture
from klinket.client.capture.host.settings import RESOLVER_FILES, HostSettings
from klinket.client.capture.machine import MachineCapture
from klinket.domain.errors import CaptureImpossible
from klinket.domain.flow import Destination, FlowFailure
from klinket.net import sockets
from tests.unit.client.conftest import Echo, FakeClient


class Backed(FakeClient):
    """Leads every flow to one server, by a connection that is klinket's own."""

    backend: tuple[str, int] | None = None

    async def open_stream(self, destination: Destination) -> Echo:
        echo = await super().open_stream(destination)
        if self.backend is None:
            return echo
        sock = await sockets.connect_first([(2, self.backend)], 5)
        return direct.DirectStream(sock)  # type: ignore[return-value]


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def main() -> None:
    options = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    client = Backed()
    if backend := options.get("backend"):
        client.backend = (backend[0], backend[1])
    settings = HostSettings(
        fast=frozenset(options.get("fast", ())),
        sources=tuple(options.get("sources", ())),
        users=tuple(options.get("users", ())),
        own_hosts=lambda: options.get("own_hosts", ()),
        resolver_files=tuple(map(Path, options.get("resolver_files", RESOLVER_FILES))),
    )
    capture: MachineCapture = HostCapture(client, lambda line: print(line, file=sys.stderr, flush=True), settings)
    for address in options.get("granted", ()):
        client.grant(address)
    try:
        await capture.start()
    except CaptureImpossible as error:
        say(impossible=str(error))
        return
    await capture.follow(client.resources)
    say(started=True)
    reader = asyncio.StreamReader(limit=1 << 22)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        for verb, value in json.loads(line).items():
            if verb == "grant":
                for address in value:
                    client.grant(address)
                await capture.follow(client.resources)
                say(done=verb)
            elif verb == "only":
                client.resources.clear()
                for address in value:
                    client.grant(address)
                await capture.follow(client.resources)
                say(done=verb)
            elif verb == "refuse":
                client.refuse(value[0], FlowFailure(value[1]))
                say(done=verb)
            elif verb == "state":
                state = capture.state()
                say(rules=state.rules, dns=state.dns, problems=state.problems)
            elif verb == "close":
                await capture.aclose()
                say(done=verb)
                return
    await capture.aclose()


uvloop.run(main())
