"""What a request says: the token it bears, where it comes from, its JSON body within bounds."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, HTTPConnection, Request

from klinket.controller.seats import asked
from klinket.domain.errors import InvalidInput, KlinketError

#: Bytes of a request body.
MAX_BODY_BYTES = 262_144
#: Seconds for a whole body to arrive.
BODY_SECONDS = 10.0
T = TypeVar("T", bound=msgspec.Struct)


class BodyTooLarge(KlinketError):
    """The body of a request holds more than is read."""

    code = "body-too-large"
    default_hint = "send less at once"


class BodyTooSlow(KlinketError):
    """The body of a request did not arrive in time."""

    code = "body-too-slow"
    default_hint = "send it again, and look at the network in between if it stays"


class BodyCutShort(KlinketError):
    """The connection ended within the body of a request: nobody is there to be told."""

    code = "body-cut-short"
    default_hint = "send it again, and look at the network in between if it stays"


def bearer(request: HTTPConnection) -> str:
    """Return the bearer token of a request, or an empty text."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def address_of(request: HTTPConnection) -> str:
    """Return the address of the peer; no header has a say in it."""
    return request.client.host if request.client else ""


async def bounded_body(request: Request) -> bytes:
    """Return the body; raises BodyTooLarge above MAX_BODY_BYTES without reading further, BodyTooSlow after BODY_SECONDS, and
    BodyCutShort where the connection ends before.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise BodyTooLarge(f"the request body may hold {MAX_BODY_BYTES} bytes")
    except ClientDisconnect:
        raise BodyCutShort("the connection ended before the request's body did") from None
    except TimeoutError:
        raise BodyTooSlow(f"the request body did not arrive within {BODY_SECONDS:g} s") from None
    asked(request)
    return bytes(body)


async def decoded(request: Request, type: type[T]) -> T:
    """Return the JSON body; raises InvalidInput("body")."""
    try:
        return msgspec.json.decode(await bounded_body(request), type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        # The text of a decoding error names fields and types, never values.
        raise InvalidInput("body", f"the body is not understood: {error}") from error
