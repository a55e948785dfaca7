"""The Admin API over HTTP: `POST /api/graphql/` with `X-API-KEY`; authenticates before it parses (facts §7)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from klinket.controller.graphql.context import ApiCaller
from klinket.controller.graphql.execute import GraphQLApi
from klinket.controller.store.errors import StoreUnavailable
from klinket.domain.errors import AuthenticationFailed, KlinketError, Throttled

logger = logging.getLogger(__name__)

#: The contract, as existing clients know it, and what klinket has beyond it.
GRAPHQL_PATH = "/api/graphql/"
EXTENSION_PATH = "/api/klinket/graphql/"
#: Bytes of a request body.
MAX_BODY_BYTES = 262_144
#: Seconds one request may execute.
MAX_SECONDS = 30.0

#: Finds who a token belongs to: (token, address of the peer) -> caller; raises AuthenticationFailed or Throttled.
Authenticate = Callable[[str, str], Awaitable[ApiCaller]]


class GraphQLRequest(msgspec.Struct):
    """The JSON body; variables may hold names that the operation does not declare."""

    query: str
    variables: dict[str, Any] | None = None
    operationName: str | None = None  # noqa: N815 - the name on the wire


_decoder = msgspec.json.Decoder(GraphQLRequest)


def graphql_routes(path: str, api: GraphQLApi, authenticate: Authenticate) -> list[Route]:
    """Return the routes of one API; GET and HEAD answer at once (clients probe with them)."""

    async def post(request: Request) -> Response:
        peer = request.client.host if request.client else ""
        try:
            caller = await authenticate(request.headers.get("x-api-key", ""), peer)
        except Throttled as error:
            return told(429, error)
        except AuthenticationFailed as error:
            return told(401, error)
        except StoreUnavailable as error:
            return told(503, error)
        try:
            body = await bounded_body(request)
        except ValueError:
            return plain(413, f"the request body may hold {MAX_BODY_BYTES} bytes")
        try:
            given = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return plain(400, f"the body must be JSON with a text `query`: {error}")
        try:
            async with asyncio.timeout(MAX_SECONDS):
                answer = await api.execute(given.query, given.variables, given.operationName, caller)
        except StoreUnavailable as error:
            return told(503, error)
        except TimeoutError:
            return plain(503, f"the request took longer than {MAX_SECONDS:.0f} s")
        return JSONResponse(answer)

    async def look(_: Request) -> Response:
        return JSONResponse({"message": "POST a GraphQL document here, with your token in X-API-KEY"})

    return [Route(path, post, methods=["POST"]), Route(path, look, methods=["GET"])]


async def bounded_body(request: Request) -> bytes:
    """Return the body; raises ValueError above MAX_BODY_BYTES without reading further."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ValueError("body too large")
    return bytes(body)


def told(status: int, error: KlinketError) -> Response:
    """Return an error answer with code and hint, and Retry-After in whole seconds where waiting helps."""
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    detail = {"message": error.message, "extensions": {"code": error.code, "hint": error.hint}}
    return JSONResponse({"errors": [detail]}, status_code=status, headers=headers)


def plain(status: int, message: str) -> Response:
    """Return an error answer in GraphQL's shape."""
    return JSONResponse({"errors": [{"message": message}]}, status_code=status)
