"""The Admin API over HTTP: `POST /api/graphql/` with `X-API-KEY`; authenticates before it parses (facts §7)."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from klinket.controller.graphql.context import ApiCaller
from klinket.controller.graphql.deadline import MAX_SECONDS, TookTooLong
from klinket.controller.graphql.execute import GraphQLApi, Refused, told
from klinket.controller.graphql.request_ids import identified
from klinket.controller.http_status import headers_of, status_of
from klinket.controller.request import bounded_body
from klinket.controller.seats import proven
from klinket.domain.errors import Forbidden, InvalidInput, KlinketError
from klinket.wire.paths import DRY_RUN

#: Seconds a request is given beyond MAX_SECONDS to stop by itself.
_STOPPING_SECONDS = 5.0


class Access(Protocol):
    """Who may ask, and how often."""

    async def authenticate(self, request: Request) -> ApiCaller:
        """Return who asks, and count the request; raises AuthenticationFailed, Forbidden or Throttled."""

    async def refused(self, caller: ApiCaller) -> None:
        """Note that a token asked for what its scopes do not allow."""

    def count_mutations(self, caller: ApiCaller, count: int) -> None:
        """Count mutations about to be executed; raises Throttled."""


class GraphQLRequest(msgspec.Struct):
    """The JSON body; variables may hold names that the operation does not declare."""

    query: str
    variables: dict[str, Any] | None = None
    operationName: str | None = None  # noqa: N815 - the name on the wire


_decoder = msgspec.json.Decoder(GraphQLRequest)


def graphql_routes(path: str, api: GraphQLApi, access: Access) -> list[Route]:
    """Return the routes of one API; GET and HEAD answer at once (clients probe with them)."""

    async def post(request: Request, *, dry_run: bool = False) -> Response:
        try:
            return Response(msgspec.json.encode(await answer(request, dry_run)), media_type="application/json")
        except Refused as refused:
            return JSONResponse({"errors": refused.errors})
        except KlinketError as error:
            return refusal(status_of(error), error)

    async def answer(request: Request, dry_run: bool) -> dict[str, Any]:
        caller = identified(await access.authenticate(request), request.headers)
        proven(request, f"API token {caller.token}")
        given = _understood(await bounded_body(request))
        try:
            # The work stops by itself, also where the event loop is not asked; this is for a store that hangs, and for
            # a document that waits behind others.
            async with asyncio.timeout(MAX_SECONDS + _STOPPING_SECONDS):
                operation = await api.prepared(given.query, given.variables, given.operationName)
                try:
                    operation.check_scopes(caller)
                except Forbidden:
                    await access.refused(caller)
                    raise
                access.count_mutations(caller, operation.mutations)
                return await api.execute(operation, caller, dry_run=dry_run)
        except TimeoutError:
            raise TookTooLong(f"the request took longer than {MAX_SECONDS:.0f} s") from None

    async def look(_: Request) -> Response:
        return JSONResponse({"message": "POST a GraphQL document here, with your token in X-API-KEY"})

    async def rehearse(request: Request) -> Response:
        return await post(request, dry_run=True)

    return [
        Route(path, post, methods=["POST"]),
        Route(path, look, methods=["GET"]),
        # A path of its own: whoever does not know it refuses, where a header that is not known would make the change.
        Route(path + DRY_RUN, rehearse, methods=["POST"]),
    ]


def _understood(body: bytes) -> GraphQLRequest:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The text of a decoding error names fields and types, never values.
        raise InvalidInput("body", f"the body must be JSON with a text `query`: {error}") from error


def refusal(status: int, error: KlinketError) -> Response:
    """Return an error answer in GraphQL's shape, with code and hint."""
    return JSONResponse({"errors": [told(error)]}, status_code=status, headers=headers_of(error))
