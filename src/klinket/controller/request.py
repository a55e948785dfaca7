"""What a request says: the token it bears, where it comes from, its JSON body within bounds."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from starlette.requests import HTTPConnection, Request

from klinket.controller.graphql.http import bounded_body
from klinket.domain.errors import InvalidInput

T = TypeVar("T", bound=msgspec.Struct)


def bearer(request: HTTPConnection) -> str:
    """Return the bearer token of a request, or an empty text."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def address_of(request: HTTPConnection) -> str:
    """Return the address of the peer; no header has a say in it."""
    return request.client.host if request.client else ""


async def decoded(request: Request, type: type[T]) -> T:
    """Return the JSON body; raises InvalidInput("body")."""
    try:
        return msgspec.json.decode(await bounded_body(request), type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        # The text of a decoding error names fields and types, never values.
        raise InvalidInput("body", f"the body is not understood: {error}") from error
