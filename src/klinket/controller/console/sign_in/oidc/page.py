"""Leading a browser to the identity provider and back. What the way back needs is sealed in a cookie of this browser only."""

from __future__ import annotations

import asyncio
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from klinket.controller.app import console_sessions, oidc_identities, sign_in, used_challenges
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.lock_out import Counted
from klinket.controller.app.oidc_identities import Identity, IdentityRules
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import UserRow
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.sign_in.oidc.provider import Provider
from klinket.controller.console.sign_in.password_page import page as first_page
from klinket.controller.console.sign_in.sealed_text import seal, unseal
from klinket.controller.console.sign_in.visit import MAX_PROVIDER_CALLS, MAX_PROVIDER_WAITING, SignIn, Visit, visited
from klinket.controller.seats import proven
from klinket.domain.errors import AuthenticationFailed, IdentityRefused, KlinketError, Throttled
from klinket.net.sources import source_of

T = TypeVar("T")
CALLBACK_PATH = "/sign-in/oidc/callback"
COOKIE = "__Host-oidc"
#: Milliseconds from leaving for the provider to coming back.
AWAY_MS = 10 * 60_000
#: Characters of what the provider sends back in the address.
MAX_CODE_CHARS = 2_048


class OidcPages:
    """The pages of one identity provider."""

    def __init__(self, service: SignIn, provider: Provider, rules: IdentityRules, issuer: str) -> None:
        self._service = service
        self._provider = provider
        self._rules = rules
        self._issuer = issuer

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            visited(self._service, "GET", "/sign-in/oidc", self._leave),
            visited(self._service, "GET", CALLBACK_PATH, self._return),
            visited(self._service, "GET", "/prove/oidc", self._leave, Stage.FULL),
        ]

    async def _leave(self, visit: Visit) -> Response:
        state, nonce, verifier = (urlsafe_b64encode(self._service.entropy(32)).decode().rstrip("=") for _ in range(3))
        values: dict[str, Any] = {"state": state, "nonce": nonce, "verifier": verifier, "next": visit.next}
        if visit.session is not None:
            values |= {"session": visit.session.id, "since_ms": self._service.now_ms}
        is_proof = visit.session is not None
        try:
            address = await self._in_turn(lambda: self._provider.authorization_address(state, nonce, verifier, again=is_proof))
        except KlinketError as error:
            return first_page(visit, error)
        response = RedirectResponse(address, 303, PAGE_HEADERS)
        text = seal(self._service.master, "identity provider", values, self._service.now_ms + AWAY_MS)
        response.set_cookie(COOKIE, text, max_age=AWAY_MS // 1000, path="/", secure=True, httponly=True, samesite="lax")
        return response

    async def _return(self, visit: Visit) -> Response:
        try:
            response = await self._returned(visit)
        except KlinketError as error:
            actor = sign_in.actor_of(None, visit.browser)
            if isinstance(error, IdentityRefused):
                why = error.message
                await self._service.console.store.write(lambda tx: sign_in.refuse_identity(tx, actor, self._issuer, why))
            visit.session = visit.user = None
            response = first_page(visit, error)
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return response

    async def _returned(self, visit: Visit) -> Response:
        service, query = self._service, visit.request.query_params
        away = unseal(service.master, "identity provider", visit.request.cookies.get(COOKIE, ""), service.now_ms)
        # Used up first, whatever the answer: one cookie is one try.
        await service.console.store.write(lambda tx: used_challenges.use(tx, away["state"], away["expires_at_ms"]))
        try:
            code = self._code_of(query, away["state"])
        except IdentityRefused:  # anybody can send this, as often as they like
            counted, actor = Counted(source_of(visit.browser.address), None), sign_in.actor_of(None, visit.browser)
            await service.console.store.write(lambda tx: sign_in.count_stray_answer(tx, actor, counted))
            raise
        since = away["since_ms"] / 1000 if "session" in away else None
        identity = await self._in_turn(lambda: self._provider.identity(code, away["nonce"], away["verifier"], since))
        if "session" in away:
            return await self._proved(visit, identity, away)

        def enter(tx: Transaction) -> tuple[UserRow, str]:
            actor = sign_in.actor_of(None, visit.browser)
            user = oidc_identities.let_in(tx, actor, self._rules, identity)
            return user, sign_in.enter(tx, user, visit.browser, "identity provider", service.entropy)[1]

        user, text = await service.console.store.write(enter)
        visit.user = user
        proven(visit.request, f"console user {user.id}")
        return visit.welcome(text, away["next"])

    def _code_of(self, query: Mapping[str, str], state: str) -> str:
        """Return the code of an answer for the sign-in with this state; raises IdentityRefused."""
        if not hmac.compare_digest(query.get("state", "").encode(), state.encode()):
            raise IdentityRefused("this answer is not for the sign-in that was begun here")
        if query.get("iss", self._issuer) != self._issuer:  # RFC 9207
            raise IdentityRefused("this answer comes from another identity provider")
        if "error" in query:
            raise IdentityRefused("the identity provider has not let you in", hint="ask those who run it")
        code = query.get("code", "")
        if not 1 <= len(code) <= MAX_CODE_CHARS:
            raise IdentityRefused("the identity provider's answer is not understood")
        return code

    async def _proved(self, visit: Visit, identity: Identity, away: dict[str, Any]) -> Response:
        """Take an account's sign-in as the proof of the session it was asked for in, if it is its user's."""
        service = self._service
        try:
            session, user = await service.gate.session_of(visit.request)
        except AuthenticationFailed:
            raise IdentityRefused("your session has ended meanwhile") from None
        if session.id != away["session"]:
            raise IdentityRefused("this answer is for another session")

        def note(tx: Transaction) -> str:
            found = tx.oidc_identities.find(issuer=identity.issuer, subject=identity.subject, user_id=user.id)
            if not found:
                raise IdentityRefused("this is another account of the identity provider than yours")
            sign_in.record_proof(tx, user, visit.browser, "identity provider")
            return console_sessions.advance(tx, session, Stage.FULL, service.entropy)[1]

        visit.user = user
        return visit.welcome(await service.console.store.write(note), away["next"])

    async def _in_turn(self, call: Callable[[], T]) -> T:
        service = self._service
        if service.provider_waiting >= MAX_PROVIDER_CALLS + MAX_PROVIDER_WAITING:
            raise Throttled("too many people sign in at this moment", hint="try again in a moment", retry_after=2.0)
        service.provider_waiting += 1
        try:
            async with service.provider_turns:
                return await asyncio.to_thread(call)
        finally:
            service.provider_waiting -= 1
