"""`klinket explain`: goes the way of one flow step by step, and says where it ends and why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from klinket.client.client import Client
from klinket.client.core import Route
from klinket.client.link import ConnectorLink, LinkLost
from klinket.client.opening import ask
from klinket.domain.address import canonical_host, parse_ip
from klinket.domain.errors import AuthenticationFailed, FlowRefused, KlinketError, ProtocolError, ServiceKeyInvalid
from klinket.domain.explanation import Step, StepName, found_resource, opens
from klinket.domain.flow import HINTS, Destination, FlowFailure, TransportProtocol
from klinket.domain.resource import Resource, ResourceIndex
from klinket.net.direct_path import DirectUnavailable
from klinket.net.pipe import SealedPipe
from klinket.wire.echo import Echo
from klinket.wire.inventory import ConnectorEntry
from klinket.wire.key_file import KeyFile
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure, OpenAnswer
from klinket.wire.relay import RelayError

#: Granted resources named where none serves the host.
MAX_NAMED = 5
#: Seconds to wait for the reply to an echo request, and what it carries.
ECHO_SECONDS = 3.0
ECHO_PAYLOAD = b"klinket explain"
#: What a connector says of names, of the grant, and of itself; everything else it says of the dial.
_OF_NAMES = (FlowFailure.NAME_NOT_FOUND, FlowFailure.ADDRESS_FORBIDDEN)
_OF_THE_GRANT = (
    FlowFailure.NOT_GRANTED,
    FlowFailure.GRANT_EXPIRED,
    FlowFailure.CUT,
    FlowFailure.SERVICE_KEY_REVOKED,
    FlowFailure.SERVICE_KEY_EXPIRED,
)
_OF_ITSELF = (FlowFailure.THROTTLED, FlowFailure.DRAINING, FlowFailure.INTERNAL, FlowFailure.NO_CONNECTOR)


class Ended(Exception):
    """A step has failed: there is no next one."""


@dataclass
class Explanation:
    """What was found, in order; only the last step may have failed. `resource`: the name of the one that serves."""

    destination: Destination
    steps: list[Step] = field(default_factory=list)
    resource: str | None = None

    @property
    def failed(self) -> Step | None:
        """Return the step that failed, or None when the address is reached."""
        return next((step for step in self.steps if not step.ok), None)


async def explain(load: Callable[[], KeyFile], destination: Destination, timeout: float) -> Explanation:
    """Return how far a flow to `destination` gets; `load` reads the key, `timeout`: seconds for all of it.

    Raises nothing that a step can tell.
    """
    found = Explanation(destination)
    client: Client | None = None
    try:
        async with asyncio.timeout(timeout):
            key_file = _key(found, load)
            client = Client(key_file)
            await _account(found, client, key_file)
            await _Way(found, client).go()
    except Ended:
        pass
    except TimeoutError:
        late = StepName.ACCOUNT if len(found.steps) < 2 else StepName.CONNECTOR
        found.steps.append(Step(late, False, f"no answer within {timeout:.0f} s", code=FlowFailure.TIMED_OUT.value))
    finally:
        if client is not None:
            await client.aclose()
    return found


def _end(found: Explanation, name: StepName, error: KlinketError, evidence: Iterable[str] = (), text: str = "") -> Ended:
    """Add the step that failed with an error; returns what ends the explanation."""
    code = error.failure.value if isinstance(error, FlowRefused) else error.code
    found.steps.append(Step(name, False, text or error.message, tuple(evidence), error.hint or None, code))
    return Ended()


def _milliseconds(begun: float) -> str:
    return f"{(time.monotonic() - begun) * 1000:.0f} ms"


def _key(found: Explanation, load: Callable[[], KeyFile]) -> KeyFile:
    try:
        key_file = load()
        _ = key_file.private_key
    except ServiceKeyInvalid as error:
        raise _end(found, StepName.KEY, error) from error
    text = f"key {key_file.key_id} of service account {key_file.service_account_id}"
    expires = f"expires: {key_file.expires_at or 'never'}"
    found.steps.append(Step(StepName.KEY, True, text, (f"controller: {key_file.network}", expires)))
    return key_file


async def _account(found: Explanation, client: Client, key_file: KeyFile) -> None:
    begun = time.monotonic()
    try:
        await client.start()
    except AuthenticationFailed as error:
        (key,) = found.steps
        found.steps.clear()  # the file is right, and the key in it is not
        raise _end(found, StepName.KEY, error, (key.text, *key.evidence, f"so says {key_file.network}")) from error
    except KlinketError as error:
        raise _end(found, StepName.ACCOUNT, error, (f"after {_milliseconds(begun)}",)) from error
    granted = len(client.resources)
    text = f"{key_file.network} has let the service account in: {granted} resource{'s' * (granted != 1)} granted"
    found.steps.append(Step(StepName.ACCOUNT, True, text, (f"session {client.session}, after {_milliseconds(begun)}",)))


class _Way:
    """The steps of a client that is online."""

    def __init__(self, found: Explanation, client: Client) -> None:
        self._found = found
        self._client = client
        self._core = client.core

    def _passed(self, name: StepName, text: str, *evidence: str) -> None:
        self._found.steps.append(Step(name, True, text, evidence))

    async def go(self) -> None:
        """Add the steps; raises Ended with the first that fails."""
        resource = self._resource()
        self._grant(resource)
        routes = self._routes(resource)
        await self._path(routes)
        route, link = await self._connector(routes)
        await self._open(resource, route, link)

    def _resource(self) -> Resource:
        destination = self._found.destination
        serving = ResourceIndex(self._core.resources).serving(destination.host)
        if not serving:
            names = [
                f"granted: {one.name!r} ({f'{one.alias}, ' if one.alias else ''}{one.address.text})"
                for one in self._core.resources[:MAX_NAMED]
            ]
            more = [f"and {len(self._core.resources) - MAX_NAMED} more"] if len(self._core.resources) > MAX_NAMED else []
            hint = "grant a resource that serves it; an admin sees more: klinket admin explain"
            error = FlowRefused(FlowFailure.NOT_GRANTED, f"no granted resource serves {destination.host}", hint=hint)
            raise _end(self._found, StepName.RESOURCE, error, names + more)
        self._found.steps.append(found_resource(serving, destination.host))
        self._found.resource = serving[0].name
        return serving[0]

    def _grant(self, resource: Resource) -> None:
        step = opens(resource, self._found.destination)
        if not step.ok:
            raise _end(
                self._found, StepName.GRANT, FlowRefused(FlowFailure.NOT_GRANTED, step.text, hint=HINTS[FlowFailure.NOT_GRANTED]),
                step.evidence,
            )  # fmt: skip
        try:
            self._core.decide(self._found.destination, self._client.now())
            grant = self._core.grant_for(resource.remote_network)
        except FlowRefused as error:
            raise _end(self._found, StepName.GRANT, error) from error
        left = grant.expires_at_ms / 1000 - self._client.now()
        self._passed(StepName.GRANT, step.text, f"grant valid for {left:.0f} s more, and renewed before")

    def _routes(self, resource: Resource) -> list[Route]:
        try:
            return self._core.routes(resource, self._client.now())
        except FlowRefused as error:
            here = [one for one in self._core.configuration.connectors if one.remote_network == resource.remote_network]
            names = [f"connector {one.name}: {'online, at no relay' if one.online else 'not online'}" for one in here]
            raise _end(self._found, StepName.CONNECTOR, error, names) from error

    async def _path(self, routes: list[Route]) -> None:
        relays = {relay.id: relay for route in routes for relay in route.relays}
        evidence: list[str] = []
        reached = [await self._reached(f"relay {relay.address}", self._client.linker.relay_path(relay).probe(), evidence)
                   for relay in relays.values()]  # fmt: skip
        text = f"{sum(reached)} of {len(relays)} relays can be reached"
        listening = [route.connector for route in routes if route.connector.direct]
        direct = [await self._reached(f"connector {one.name} itself", self._direct(one), evidence) for one in listening]
        if listening:
            text += f", and {sum(direct)} of {len(listening)} connectors directly"
        if not any(reached) and not any(direct):
            hint = "allow outbound TCP to the relays' addresses; an admin looks at their logs"
            raise _end(self._found, StepName.PATH, LinkLost(text, hint=hint), evidence)
        self._passed(StepName.PATH, text, *evidence)

    async def _direct(self, connector: ConnectorEntry) -> float:
        begun = time.monotonic()
        (await self._client.linker.direct_path(connector).connect(connector.id)).close()
        return time.monotonic() - begun

    async def _reached(self, what: str, connecting: Awaitable[float], evidence: list[str]) -> bool:
        try:
            seconds = await connecting
        except (RelayError, DirectUnavailable) as error:
            evidence.append(f"{what}: {error.message}")
            return False
        evidence.append(f"{what}: reached in {seconds * 1000:.1f} ms")
        return True

    async def _connector(self, routes: list[Route]) -> tuple[Route, ConnectorLink]:
        evidence: list[str] = []
        failure: FlowRefused | None = None
        for route in routes:
            begun = time.monotonic()
            try:
                link = await self._client.link(route)
            except FlowRefused as error:
                failure = error
                evidence.append(error.message)
                continue
            way = "directly" if link.direct else "through a relay"
            evidence.append(f"link made {way} in {_milliseconds(begun)}")
            if not link.direct:
                evidence += await self._through_nats(route.connector)
            self._passed(StepName.CONNECTOR, f"connector {route.connector.name} has answered and taken the grant", *evidence)
            return route, link
        assert failure is not None
        hint = HINTS[FlowFailure.NO_CONNECTOR]
        ended = FlowRefused(FlowFailure.NO_CONNECTOR, "no connector of its remote network can be reached", hint=hint)
        raise _end(self._found, StepName.CONNECTOR, ended, evidence) from failure

    async def _through_nats(self, connector: ConnectorEntry) -> list[str]:
        """Return whether later flows would be carried directly, where both sides are behind NATs."""
        path = self._client.linker.puncher.path(connector.id, connector.punches)
        if path is None:
            return ["hole punching is turned off, here, at the connector or at the controller: flows stay at the relay"]
        begun = time.monotonic()
        try:
            await path.fill()
        except KlinketError as error:
            return [f"flows stay at the relay, no hole was punched: {error.message}"]
        return [f"lasting jobs are carried directly: holes through the NATs were punched in {_milliseconds(begun)}"]

    async def _open(self, resource: Resource, route: Route, link: ConnectorLink) -> None:
        destination, connector = self._found.destination, route.connector.name
        begun = time.monotonic()
        try:
            pipe, answer = await ask(await link.pipe(), destination, resource)
        except FlowRefused as error:
            self._refused(error, resource, connector, begun)
            raise Ended from error
        replied = ""
        try:
            if destination.protocol is TransportProtocol.ICMP:
                replied = await _echo(pipe)
        finally:
            pipe.abort()
        self._names(resource, connector, answer)
        if destination.protocol is TransportProtocol.ICMP:
            text = f"connector {connector} sends echo requests there; {replied}"
        elif destination.protocol is TransportProtocol.UDP:
            text = f"connector {connector} sends datagrams there; whether anybody answers only a program can tell"
        else:
            text = f"{destination} has accepted the connection of connector {connector}"
        self._passed(StepName.DIAL, text, f"after {_milliseconds(begun)}")

    def _names(self, resource: Resource, connector: str, answer: OpenAnswer | None) -> None:
        host = resource.host_to_dial(self._found.destination.host)
        if parse_ip(host) is not None:
            text = f"{host} is an address: nothing to look up"
        elif answer is not None and answer.address:
            text = f"connector {connector} knows {host} as {answer.address}"
        else:
            text = f"connector {connector} knows {host}"
        self._passed(StepName.DNS, text)

    def _refused(self, error: FlowRefused, resource: Resource, connector: str, begun: float) -> None:
        said = (f"connector {connector} says {error.failure.value} after {_milliseconds(begun)}",)
        if error.failure in _OF_THE_GRANT:
            _end(self._found, StepName.GRANT, error, said)
        elif error.failure in _OF_ITSELF or isinstance(error, LinkLost):
            _end(self._found, StepName.CONNECTOR, error, said)
        elif error.failure in _OF_NAMES:
            _end(self._found, StepName.DNS, error, said)
        else:
            self._names(resource, connector, None)
            _end(self._found, StepName.DIAL, error, said)


async def _echo(pipe: SealedPipe) -> str:
    """Send one echo request; return in words what became of it. That none is answered proves nothing: many hosts are silent."""
    begun = time.monotonic()
    try:
        async with asyncio.timeout(ECHO_SECONDS):
            await pipe.send(FrameType.DATAGRAM, Echo(1, ECHO_PAYLOAD).encode())
            frame = await pipe.receive()
    except TimeoutError:
        return f"one was not answered within {ECHO_SECONDS:.0f} s"
    except (OSError, ProtocolError):
        return "the flow ended before one was answered"
    if frame.type is FrameType.FAIL:
        return f"one came back: {Failure.decode(frame.content).message}"
    return f"one was answered after {_milliseconds(begun)}"


def destination_of(host: str, port: int, protocol: TransportProtocol) -> Destination:
    """Return the destination of what people write; raises InvalidInput."""
    return Destination(canonical_host(host), port, protocol)
