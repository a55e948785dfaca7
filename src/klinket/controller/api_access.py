"""Who may speak to the Admin API, from where, and how often: asked before anything of a request is parsed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from klinket.controller.app import api_tokens
from klinket.controller.app.ports import Store
from klinket.controller.graphql.context import ApiCaller
from klinket.controller.request import address_of
from klinket.controller.throttle import FAILURE_BURST, FAILURES_PER_SECOND, RECORD_BURST, RECORDS_PER_SECOND
from klinket.domain.audit import Actor, ActorType
from klinket.domain.errors import AuthenticationFailed, Forbidden, KlinketError, Throttled
from klinket.domain.token_buckets import TokenBuckets
from klinket.net.sources import source_of

logger = logging.getLogger(__name__)

TOKEN_HEADER = "X-API-KEY"  # noqa: S105 - a name


@dataclass(frozen=True, slots=True)
class ApiRates:
    """What one API token may do in a minute, and at once after a quiet minute; 0: no limit."""

    reads_per_minute: int
    writes_per_minute: int


class ApiAccess:
    """Implements controller.graphql.http.Access. `monotonic`: seconds on a clock that does not go back."""

    def __init__(self, store: Store, rates: ApiRates, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._failures = TokenBuckets(FAILURE_BURST, FAILURES_PER_SECOND)
        self._records = TokenBuckets(RECORD_BURST, RECORDS_PER_SECOND)
        self._reads = _RateLimit("requests", rates.reads_per_minute)
        self._writes = _RateLimit("mutations", rates.writes_per_minute)

    async def authenticate(self, request: Request) -> ApiCaller:
        """Return who asks, and count one request.

        Raises AuthenticationFailed without a token or for one that is not believed, Forbidden for one used from elsewhere,
        Throttled for an address that fails too often or a token that asks too often.
        """
        address = address_of(request)
        text = request.headers.get(TOKEN_HEADER, "")
        if not text:  # nothing is guessed: it does not count as a failure
            raise AuthenticationFailed(api_tokens.NOT_BELIEVED, hint=api_tokens.NOT_BELIEVED_HINT)
        try:
            token, now_ms = await self._store.read(lambda tx: (api_tokens.by_text(tx, text), tx.now_ms))
        except AuthenticationFailed as error:
            logger.warning("admin api: refused, %s, from %s", error.code, address)
            self._slow(address, error)
            raise
        actor = Actor(ActorType.API, id=str(token.id), name=token.name, source=address)
        try:
            api_tokens.check_source(token, address)
        except Forbidden:
            await self._record(actor, token.id, "source")
            raise
        self._reads.count(token.id, token.name, 1, self._monotonic())
        if token.last_used_ms is None or now_ms - token.last_used_ms >= api_tokens.USE_NOTED_MS:
            await self._note_use(token.id)
        return ApiCaller(actor, frozenset(token.scopes), token.id)

    async def reader(self, request: Request) -> ApiCaller:
        """Return who asks to read; raises as `authenticate`, and Forbidden for a token that may not read."""
        caller = await self.authenticate(request)
        if api_tokens.READ not in caller.scopes:
            await self.refused(caller)
            raise Forbidden("this API token may not read", hint="use a token that has the scope read")
        return caller

    async def refused(self, caller: ApiCaller) -> None:
        """Note that a token asked for what its scopes do not allow."""
        await self._record(caller.actor, caller.token, "scope")

    def count_mutations(self, caller: ApiCaller, count: int) -> None:
        """Count mutations about to be executed; raises Throttled."""
        if count:
            self._writes.count(caller.token, caller.actor.name or "", count, self._monotonic())

    def _slow(self, address: str, error: AuthenticationFailed) -> None:
        """Raise Throttled in place of the refusal where there were too many: whoever has a valid token is never slowed by it."""
        wait = self._failures.take(source_of(address), self._monotonic())
        if wait:
            raise Throttled.again_in(
                wait, f"too many requests without a valid API token from {address}: {FAILURE_BURST} are allowed"
            ) from error

    async def _record(self, actor: Actor, id: int, why: str) -> None:
        logger.warning("admin api: refused, forbidden by %s, token %d, from %s", why, id, actor.source)
        if self._records.take(str(id), self._monotonic()):
            return
        try:
            await self._store.write(lambda tx: api_tokens.record_refusal(tx, actor, id, why))
        except KlinketError as error:  # it is refused whether that is written or not
            logger.warning("admin api: the refusal of token %d is not recorded: %s", id, error.message)

    async def _note_use(self, id: int) -> None:
        try:
            await self._store.write(lambda tx: api_tokens.note_use(tx, id))
        except KlinketError as error:  # the store is overloaded or going down: the request itself may still be answered
            logger.warning("admin api: the use of token %d is not noted: %s", id, error.message)


class _RateLimit:
    """A bucket per token that holds a minute's worth."""

    def __init__(self, what: str, per_minute: int) -> None:
        self._what = what
        self._per_minute = per_minute
        self._buckets = TokenBuckets(per_minute, per_minute / 60)

    def count(self, token: int, name: str, count: int, now: float) -> None:
        """Take `count`; raises Throttled."""
        if not self._per_minute:
            return
        wait = self._buckets.take(str(token), now, count)
        if wait:
            raise Throttled(
                f"API token {name!r} sends too many {self._what}: {self._per_minute} a minute are allowed",
                hint="wait as told, give each program a token of its own, or raise the limit of the controller",
                retry_after=wait,
            )
