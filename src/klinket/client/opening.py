"""Asking connectors for a flow: OPEN, and their word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from klinket.client.core import ClientCore, Route
from klinket.client.link import ConnectorLink, LinkLost
from klinket.domain.errors import FlowRefused, ProtocolError
from klinket.domain.flow import HINTS, Destination, FlowFailure
from klinket.domain.identifiers import FlowId
from klinket.domain.resource import Resource
from klinket.net.clock import entropy
from klinket.net.pipe import SealedPipe
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure, OpenAnswer, OpenRequest

#: Seconds to wait for OPENED or FAIL: longer than a connector dials.
OPEN_SECONDS = 15.0


async def ask(pipe: SealedPipe, destination: Destination, resource: Resource) -> tuple[SealedPipe, OpenAnswer]:
    """Send OPEN and return the pipe with the connector's answer; raises FlowRefused, LinkLost when the pipe died."""
    request = OpenRequest(destination, resource.id, FlowId(entropy(16).hex()))
    pipe.flow = bytes.fromhex(request.flow)
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            await pipe.send(FrameType.OPEN, request.encode())
            frame = await pipe.receive()
    except TimeoutError as error:
        pipe.abort()
        raise LinkLost(f"the connector did not answer within {OPEN_SECONDS:.0f} s") from error
    except (OSError, ProtocolError) as error:
        raise LinkLost(f"the connection to the connector ended: {error}") from error
    except BaseException:
        pipe.abort()
        raise
    if frame.type is FrameType.OPENED:
        try:
            return pipe, OpenAnswer.decode(frame.content)
        except ProtocolError as error:
            pipe.abort()
            raise LinkLost(f"the connector's answer is not understood: {error.message}") from error
    pipe.close()
    if frame.type is not FrameType.FAIL:
        raise LinkLost("the connector's answer is not understood")
    told = Failure.decode(frame.content)
    raise FlowRefused(told.failure, told.message, hint=HINTS.get(told.failure), retry_after=told.retry_after)


async def open_first(
    routes: Sequence[Route],
    destination: Destination,
    resource: Resource,
    link_of: Callable[[Route], Awaitable[ConnectorLink]],
    lost: Callable[[ConnectorLink | None], Awaitable[None]],
    core: ClientCore,
    clock: Callable[[], float],
) -> tuple[SealedPipe, ConnectorLink]:
    """Ask the connectors in order; returns the pipe on which the first has accepted. Raises FlowRefused.

    Nothing of the program's was sent yet, so another may be asked. `lost`: is told of links that failed.
    """
    failure: FlowRefused | None = None
    for route in routes:
        # A warm pipe may have died unnoticed: one more try with a fresh one before the next connector.
        for _ in range(2):
            link: ConnectorLink | None = None
            try:
                link = await link_of(route)
                pipe, _ = await ask(await link.pipe(), destination, resource)
                core.connector_works(route.connector.id)
                return pipe, link
            except LinkLost as error:
                failure = error
                await lost(link)
            except FlowRefused as error:
                if error.failure not in (FlowFailure.DRAINING, FlowFailure.NO_CONNECTOR):
                    raise
                failure = error
                await lost(link)
                break
        core.connector_failed(route.connector.id, clock())
    raise failure or FlowRefused(FlowFailure.NO_CONNECTOR, f"no connector serves {destination}")
