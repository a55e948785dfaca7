"""Asking connectors for a flow: OPEN, and their word."""

from __future__ import annotations

from klinket.client.flow import OPEN_SECONDS
from klinket.client.link import LinkLost
from klinket.domain.errors import AuthenticationFailed, FlowRefused, KlinketError, ProtocolError
from klinket.domain.flow import HINTS, Destination, FlowFailure
from klinket.domain.identifiers import FlowId
from klinket.domain.resource import Resource
from klinket.net.clock import entropy
from klinket.net.deadlines import within
from klinket.net.pipe import SealedPipe
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure, OpenAnswer, OpenRequest


async def ask(pipe: SealedPipe, destination: Destination, resource: Resource) -> tuple[SealedPipe, OpenAnswer]:
    """Send OPEN and return the pipe with the connector's answer; raises FlowRefused, LinkLost when the pipe died."""
    request = OpenRequest(destination, resource.id, FlowId(entropy(16).hex()))
    pipe.flow = bytes.fromhex(request.flow)
    try:
        with within(OPEN_SECONDS):
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
    try:
        told = Failure.decode(frame.content)
    except ProtocolError as error:
        raise LinkLost(f"the connector's answer is not understood: {error.message}") from error
    raise FlowRefused(told.failure, told.message, hint=HINTS.get(told.failure), retry_after=told.retry_after)


async def begin(pipe: SealedPipe, destination: Destination, resource: Resource) -> SealedPipe:
    """Send OPEN and return the pipe: data may follow at once, the answer is still to come. Raises LinkLost."""
    request = OpenRequest(destination, resource.id, FlowId(entropy(16).hex()), data_follows=True)
    try:
        await pipe.send(FrameType.OPEN, request.encode())
    except OSError as error:
        raise LinkLost(f"the connection to the connector ended: {error}") from error
    return pipe


def failure_of(error: KlinketError) -> FlowFailure:
    """Return as what flows are refused once the session has ended with `error`."""
    try:
        return FlowFailure(error.code)
    except ValueError:
        return FlowFailure.SERVICE_KEY_REVOKED if isinstance(error, AuthenticationFailed) else FlowFailure.RESET
