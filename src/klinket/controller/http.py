"""The controller's HTTP surface beside the Admin API: logins, enrolment, keys, health, receipts."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from klinket.controller import metrics
from klinket.controller.app import api_tokens, cuts
from klinket.controller.app.audit import iso
from klinket.controller.app.ports import Store
from klinket.controller.channels import Channels
from klinket.controller.connector_tokens import bearer
from klinket.controller.enrolment import EnrolmentRequest, Enrolments
from klinket.controller.graphql.context import ApiCaller
from klinket.controller.graphql.http import bounded_body
from klinket.controller.login import EndRequest, LoginRequest, Logins
from klinket.controller.metrics import Metrics
from klinket.controller.relay_channels import RelayChannels
from klinket.controller.trust import Trust
from klinket.domain.errors import (
    AuthenticationFailed,
    Conflict,
    ConnectorTokensDead,
    InvalidInput,
    KlinketError,
    NotFound,
    Throttled,
)
from klinket.wire.control import CHANNEL_PATH
from klinket.wire.key_file import LOGIN_PATH
from klinket.wire.relay import RELAY_CHANNEL_PATH

logger = logging.getLogger(__name__)
T = TypeVar("T", bound=msgspec.Struct)

LOGOUT_PATH = "/api/v4/headless/logout"
ENROL_PATH = "/api/v4/connector/enroll"
VALIDATE_TOKENS_PATH = "/api/v4/connector/validate_tokens"
CUTS_PATH = "/api/klinket/v1/cuts"
_STATUS: tuple[tuple[type[KlinketError], int], ...] = (
    (Throttled, 429),
    (ConnectorTokensDead, 410),
    (NotFound, 404),
    (Conflict, 409),
    (AuthenticationFailed, 401),
    (InvalidInput, 400),
)


class RefreshToken(msgspec.Struct):
    """Body of a token check."""

    refresh_token: str


class Endpoints:
    """Everything a request can reach, except the Admin API."""

    def __init__(
        self,
        store: Store,
        trust: Trust,
        logins: Logins,
        enrolments: Enrolments,
        channels: Channels,
        relay_channels: RelayChannels,
        counted: Metrics,
        authenticate: Callable[[str, str], Awaitable[ApiCaller]],
    ) -> None:
        self._store = store
        self._trust = trust
        self._logins = logins
        self._enrolments = enrolments
        self._channels = channels
        self._relay_channels = relay_channels
        self._metrics = counted
        self._authenticate = authenticate

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route(LOGIN_PATH, self._guarded(self._login), methods=["POST"]),
            Route(LOGOUT_PATH, self._guarded(self._logout), methods=["POST"]),
            Route(ENROL_PATH, self._guarded(self._enrol), methods=["POST"]),
            Route(VALIDATE_TOKENS_PATH, self._guarded(self._validate_tokens), methods=["POST"]),
            Route("/.well-known/jwks.json", self._jwks),
            Route("/healthz", self._healthz),
            Route("/readyz", self._guarded(self._readyz)),
            Route("/metrics", self._metrics_text),
            Route(CUTS_PATH, self._guarded(self._cuts)),
            Route(CUTS_PATH + "/{id:int}", self._guarded(self._cut)),
            Route("/", self._root),
            WebSocketRoute(CHANNEL_PATH, self._channels.serve),
            WebSocketRoute(RELAY_CHANNEL_PATH, self._relay_channels.serve),
        ]

    def _guarded(self, handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                return await handle(request)
            except KlinketError as error:
                return told(error)

        return guarded

    async def _login(self, request: Request) -> Response:
        try:
            body = await decoded(request, LoginRequest)
            answer = await self._logins.login(body, address_of(request))
        except KlinketError as error:
            self._metrics.logins.labels("throttled" if isinstance(error, Throttled) else "refused").inc()
            raise
        self._metrics.logins.labels("accepted").inc()
        return secret(msgspec.to_builtins(answer))

    async def _logout(self, request: Request) -> Response:
        await self._logins.end(await decoded(request, EndRequest), address_of(request))
        return Response(status_code=204)

    async def _enrol(self, request: Request) -> Response:
        try:
            answer = await self._enrolments.enrol(await decoded(request, EnrolmentRequest), address_of(request))
        except KlinketError as error:
            logger.warning("enrolment refused: %s, from %s", error.code, address_of(request))
            self._metrics.enrolments.labels("refused").inc()
            raise
        self._metrics.enrolments.labels("accepted").inc()
        return secret(msgspec.to_builtins(answer))

    async def _validate_tokens(self, request: Request) -> Response:
        body = await decoded(request, RefreshToken)
        await self._enrolments.tokens_valid(bearer(request), body.refresh_token)
        return JSONResponse({"ok": True})

    async def _jwks(self, _: Request) -> Response:
        return JSONResponse(self._trust.jwks(), headers={"Cache-Control": "max-age=60"})

    async def _healthz(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _readyz(self, _: Request) -> Response:
        stamp = await self._store.read(lambda tx: tx.head())
        return JSONResponse({"status": "ready", "revision": stamp[1]})

    async def _metrics_text(self, request: Request) -> Response:
        if not _is_loopback(address_of(request)):
            return told(AuthenticationFailed("metrics are served to this machine only"))
        return Response(self._metrics.text(), media_type=metrics.CONTENT_TYPE)

    async def _root(self, _: Request) -> Response:
        return JSONResponse({"product": "klinket", "network": self._trust.network})

    # ---- receipts

    async def _reader(self, request: Request) -> None:
        caller = await self._authenticate(request.headers.get("x-api-key", ""), address_of(request))
        if api_tokens.READ not in caller.scopes:
            raise AuthenticationFailed("this API token may not read")

    async def _cuts(self, request: Request) -> Response:
        await self._reader(request)
        return JSONResponse({"cuts": [_shown(cut) for cut in await self._store.read(cuts.receipts)]})

    async def _cut(self, request: Request) -> Response:
        await self._reader(request)
        number = int(request.path_params["id"])
        if number >= 1 << 62:
            raise NotFound("Cut", number)
        return JSONResponse(_shown(await self._store.read(lambda tx: cuts.receipt(tx, number))))


def _shown(cut: dict[str, object]) -> dict[str, object]:
    created = cut["created_at_ms"]
    assert isinstance(created, int)
    return {**cut, "created_at": iso(created)}


def told(error: KlinketError) -> Response:
    """Return an error as code, message and hint, with Retry-After where waiting helps."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
    body: dict[str, object] = {"code": error.code, "message": error.message, "hint": error.hint}
    headers = {}
    if error.retry_after is not None:
        body["retry_after"] = round(error.retry_after, 1)
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return JSONResponse(body, status_code=status, headers=headers)


def secret(body: object) -> Response:
    """Return an answer that nobody keeps."""
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


async def decoded(request: Request, type: type[T]) -> T:
    """Return the JSON body; raises InvalidInput("body")."""
    try:
        return msgspec.json.decode(await bounded_body(request), type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        # The text of a decoding error names fields and types, never values.
        raise InvalidInput("body", f"the body is not understood: {error}") from error


def address_of(request: Request) -> str:
    """Return the address of the peer; no header has a say in it."""
    return request.client.host if request.client else ""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
