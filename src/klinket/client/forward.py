"""`klinket forward`: a session and local ports that lead to its resources, until it is stopped or the session ends for good."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from klinket.client import starting
from klinket.client.capture.forward import speak_for
from klinket.client.capture.proxy import Proxy, is_loopback
from klinket.client.client import Client
from klinket.domain.errors import Conflict, FlowRefused, InvalidInput
from klinket.domain.flow import Destination
from klinket.net.sockets import HostPort
from klinket.net.tasks import first_of
from klinket.wire.key_file import KeyFile

LOOPBACK = "127.0.0.1"
#: Forwards of one command.
MAX_FORWARDS = 256
_TAKEN = (errno.EADDRINUSE, errno.EACCES)


@dataclass(frozen=True, slots=True)
class Forward:
    """`wanted`: RESOURCE[:PORT] as people write it; `local`: None: at the same port, or another if it is taken."""

    wanted: str
    local: HostPort | None = None


@dataclass(frozen=True, slots=True)
class Listening:
    """A forward that is ready."""

    forward: Forward
    resource: str
    destination: Destination
    address: HostPort


def parse(arguments: Sequence[str]) -> list[Forward]:
    """Return the forwards of RESOURCE[:PORT] [LOCAL] RESOURCE[:PORT] [LOCAL] ...; raises InvalidInput.

    What follows a resource and is a port, or a loopback address with one, is its LOCAL.
    """
    found: list[Forward] = []
    for text in arguments:
        local = _local(text)
        if local is not None and found and found[-1].local is None:
            found[-1] = Forward(found[-1].wanted, local)
        elif text.isdigit():
            raise InvalidInput("LOCAL", f"no resource before {text}", hint="klinket forward RESOURCE:PORT LOCAL")
        else:
            found.append(Forward(text))
    if len(found) > MAX_FORWARDS:
        raise InvalidInput("RESOURCE", f"{len(found)} forwards, the limit is {MAX_FORWARDS}")
    return found


def _local(text: str) -> HostPort | None:
    host, colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or (colon and not is_loopback(host.strip("[]"))):
        return None
    if len(port) > 5 or int(port) > 65_535:
        raise InvalidInput("LOCAL", f"no port: {port[:10]}; ports are 0 to 65535, and 0 is any free one")
    return HostPort(host.strip("[]") or LOOPBACK, int(port))


async def run(
    key_file: KeyFile,
    forwards: Sequence[Forward],
    timeout: float,
    stop: asyncio.Event,
    ready: Callable[[Sequence[Listening]], None],
    told: Callable[[str], None],
) -> None:
    """Serve until `stop`; `ready` is told where it listens, `told` each refused connection with its reason.

    Raises AuthenticationFailed when the key does not work (any more), FlowRefused for what is not granted, Conflict.
    """
    client = Client(key_file)
    listeners: list[Proxy] = []

    def refused(destination: Destination, error: FlowRefused) -> None:
        told(f"klinket: {destination.host_port}: {error.failure.value}: {error}")

    try:
        starts = asyncio.ensure_future(starting.start(client, time.monotonic() + timeout))
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((starts, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not starts.done():
                return
            starts.result()
        finally:
            for task in (starts, stopped):
                task.cancel()
            await asyncio.gather(starts, stopped, return_exceptions=True)
        listening = []
        for forward in forwards:
            destination = client.destination(forward.wanted)
            resource = client.core.decide(destination, client.now())  # a port that is not granted is told now
            listener = Proxy(client, speak_for(destination), told=refused)
            listeners.append(listener)
            address = _listen(listener, forward, destination)
            listening.append(Listening(forward, resource.name, destination, address))
        ready(listening)
        await first_of(stop, client.ended)
        if client.end_reason is not None:
            raise client.end_reason
    finally:
        for listener in listeners:
            await listener.aclose()
        await client.aclose()


def _listen(listener: Proxy, forward: Forward, destination: Destination) -> HostPort:
    address = forward.local or HostPort(LOOPBACK, destination.port)
    try:
        return listener.listen(address)
    except OSError as error:
        if forward.local is None and error.errno in _TAKEN:
            return listener.listen(HostPort(LOOPBACK, 0))
        hint = "give another LOCAL, or 0 for any free port"
        raise Conflict(f"cannot listen on {address} for {forward.wanted}: {error.strerror}", hint=hint) from error
