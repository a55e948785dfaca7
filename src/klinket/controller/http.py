"""The controller's HTTP surface beside the Admin API: logins, enrolment, keys, health, receipts."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from klinket.controller import path_ids
from klinket.controller.app import cut_views, cuts
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.store_errors import StoreUnavailable
from klinket.controller.channels import Channels
from klinket.controller.enrolment import EnrolmentRequest, Enrolments
from klinket.controller.graphql.context import ApiCaller
from klinket.controller.http_status import headers_of, status_of
from klinket.controller.key_revocation import KeyRevocations, RevokeRequest
from klinket.controller.login import EndRequest, LoginRequest, Logins
from klinket.controller.metrics import Metrics
from klinket.controller.observed import Observed
from klinket.controller.punching import Punching, Reflection
from klinket.controller.relay_channels import RelayChannels
from klinket.controller.request import address_of, bearer, decoded
from klinket.controller.seats import proven
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.errors import AssertionStale, AuthenticationFailed, Forbidden, InvalidInput, KlinketError, NotFound, Throttled
from klinket.domain.moments import iso
from klinket.wire.control import CHANNEL_PATH
from klinket.wire.cut_document import sign_document
from klinket.wire.key_file import LOGIN_PATH
from klinket.wire.paths import (
    CUTS_PATH,
    ENROL_PATH,
    EXTENSION_PATH,
    GRAPHQL_PATH,
    JWKS_PATH,
    LOGOUT_PATH,
    REFLECT_PATH,
    REVOKE_PATH,
    VALIDATE_TOKENS_PATH,
)
from klinket.wire.relay import RELAY_CHANNEL_PATH

logger = logging.getLogger(__name__)


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
        punching: Punching,
        revocations: KeyRevocations,
        counted: Metrics,
        observed: Observed,
        reader: Callable[[Request], Awaitable[ApiCaller]],
    ) -> None:
        self._store = store
        self._trust = trust
        self._logins = logins
        self._enrolments = enrolments
        self._channels = channels
        self._relay_channels = relay_channels
        self._punching = punching
        self._revocations = revocations
        self._metrics = counted
        self._observed = observed
        self._caller_that_reads = reader

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route(LOGIN_PATH, self._guarded(self._login), methods=["POST"]),
            Route(LOGOUT_PATH, self._guarded(self._logout), methods=["POST"]),
            Route(REVOKE_PATH, self._guarded(self._revoke), methods=["POST"]),
            Route(ENROL_PATH, self._guarded(self._enrol), methods=["POST"]),
            Route(VALIDATE_TOKENS_PATH, self._guarded(self._validate_tokens), methods=["POST"]),
            Route(REFLECT_PATH, self._guarded(self._reflect), methods=["POST"]),
            Route(JWKS_PATH, self._jwks),
            Route("/healthz", self._healthz),
            Route("/readyz", self._guarded(self._readyz)),
            Route("/live", self._live),
            Route("/ready", self._ready),
            Route("/metrics", self._metrics_text),
            Route(CUTS_PATH, self._guarded(self._cuts)),
            Route(CUTS_PATH + f"/{{id:{path_ids.NAME}}}", self._guarded(self._cut)),
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
            self._metrics.logins.labels(_outcome(error)).inc()
            if isinstance(error, Throttled) and error.limit:
                self._metrics.throttled.labels(error.limit).inc()
            raise
        proven(request)
        self._metrics.logins.labels("accepted").inc()
        return secret(msgspec.to_builtins(answer))

    async def _logout(self, request: Request) -> Response:
        await self._logins.end(await decoded(request, EndRequest), address_of(request))
        return Response(status_code=204)

    async def _revoke(self, request: Request) -> Response:
        await self._revocations.revoke(await decoded(request, RevokeRequest), address_of(request))
        return Response(status_code=204)

    async def _enrol(self, request: Request) -> Response:
        try:
            answer = await self._enrolments.enrol(await decoded(request, EnrolmentRequest), address_of(request))
        except KlinketError as error:
            logger.warning("enrolment refused: %s, from %s", error.code, address_of(request))
            self._metrics.enrolments.labels(_outcome(error)).inc()
            raise
        proven(request)
        self._metrics.enrolments.labels("accepted").inc()
        return secret(msgspec.to_builtins(answer))

    async def _validate_tokens(self, request: Request) -> Response:
        body = await decoded(request, RefreshToken)
        await self._enrolments.tokens_valid(bearer(request), body.refresh_token, address_of(request))
        return JSONResponse({"ok": True})

    async def _reflect(self, request: Request) -> Response:
        body = await decoded(request, Reflection)
        if request.client is None:
            raise Forbidden("this connection has no address")
        own_host = str((request.scope.get("server") or ("",))[0])
        seen = self._punching.reflect(body, request.client.host, request.client.port, own_host)
        proven(request)
        return secret({"endpoint": seen})

    async def _jwks(self, _: Request) -> Response:
        return JSONResponse(self._trust.jwks(), headers={"Cache-Control": "max-age=60"})

    async def _healthz(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _readyz(self, _: Request) -> Response:
        stamp = await self._store.read(lambda tx: tx.head())
        return JSONResponse({"status": "ready", "revision": stamp[1]})

    async def _live(self, _: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def _ready(self, _: Request) -> Response:
        ready = await self._observed.ready()
        return JSONResponse(ready.document(), status_code=200 if ready.is_ready else 503)

    async def _metrics_text(self, request: Request) -> Response:
        if not _is_loopback(address_of(request)):
            return told(AuthenticationFailed("metrics are served to this machine only"))
        type, text = self._metrics.exposition.text(await self._observed.measured())
        return Response(text, media_type=type)

    async def _root(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/console/", 303)
        return JSONResponse({"product": "klinket", "network": self._trust.network})

    # ---- receipts

    async def _reader(self, request: Request) -> None:
        caller = await self._caller_that_reads(request)
        proven(request, f"API token {caller.token}")

    async def _cuts(self, request: Request) -> Response:
        await self._reader(request)
        return JSONResponse({"cuts": [_shown(cut) for cut in await self._store.read(cuts.receipts)]})

    async def _cut(self, request: Request) -> Response:
        await self._reader(request)
        number = int(request.path_params["id"])
        if number >= 1 << 62:
            raise NotFound("Cut", number)
        cut = await self._store.read(lambda tx: _in_words(tx, cuts.receipt(tx, number)))
        signer = self._trust.signers[KeyPurpose.AUDIT]
        signature = sign_document(signer, cut, network=self._trust.network, now=self._trust.clock())
        return JSONResponse({**cut, "signature": signature})


def _shown(cut: dict[str, object]) -> dict[str, object]:
    created = cut["created_at_ms"]
    assert isinstance(created, int)
    return {**cut, "created_at": iso(created)}


def _in_words(tx: Transaction, cut: dict[str, object]) -> dict[str, object]:
    return {**_shown(cut), "what": cut_views.scope_in_words(tx, str(cut["scope"]))}


def told(error: KlinketError) -> Response:
    """Return an error as code, message and hint, with Retry-After where waiting helps."""
    body: dict[str, object] = {"code": error.code, "message": error.message, "hint": error.hint}
    if error.retry_after is not None:
        body["retry_after"] = round(error.retry_after, 1)
    if isinstance(error, AssertionStale) and error.time_ms is not None:
        body["time_ms"] = error.time_ms
    return JSONResponse(body, status_code=status_of(error), headers=headers_of(error))


async def no_such_path(request: Request, _: Exception) -> Response:
    """Answer a path that leads nowhere."""
    slash = request.url.path + "/" in (GRAPHQL_PATH, EXTENSION_PATH)
    hint = f"with the slash at the end: {request.url.path}/" if slash else f"the Admin API is at {GRAPHQL_PATH}"
    body = {"code": NotFound.code, "message": "there is nothing at this path", "hint": hint}
    return JSONResponse(body, status_code=404)


async def no_such_method(_: Request, error: Exception) -> Response:
    """Answer a method that a path does not know."""
    headers = getattr(error, "headers", None)
    allowed = (headers or {}).get("Allow", "")
    body = {"code": InvalidInput.code, "message": "this path does not take this method", "hint": f"it takes {allowed}"}
    return JSONResponse(body, status_code=405, headers=headers)


def _outcome(error: KlinketError) -> str:
    if isinstance(error, StoreUnavailable):
        return "unavailable"  # nobody's credentials are in doubt
    return "throttled" if isinstance(error, Throttled) else "refused"


def secret(body: object) -> Response:
    """Return an answer that nobody keeps."""
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
