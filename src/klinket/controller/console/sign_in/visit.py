"""Requests of people who are not signed in, or not yet: what they may reach, how often, and what a browser keeps for us."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.lock_out import Counted, Proof
from klinket.controller.app.rows import ConsoleSessionRow, UserRow
from klinket.controller.app.sign_in import Browser
from klinket.controller.console.form import Form, read_form
from klinket.controller.console.gate import COOKIE, Gate, check_form_token, clear_cookie, local_path, set_cookie
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.page import Console
from klinket.controller.console.route import ROOT
from klinket.controller.console.sign_in.passkey_ceremony import Passkeys
from klinket.controller.console.sign_in.password_hash import PasswordHasher
from klinket.controller.console.sign_in.sealed_text import seal, unseal
from klinket.controller.http_status import headers_of, status_of
from klinket.controller.request import address_of
from klinket.controller.sealing import MasterKey
from klinket.domain.errors import AuthenticationFailed, KlinketError, SignInOver, Throttled
from klinket.domain.token_buckets import TokenBuckets
from klinket.net.sources import source_of

if TYPE_CHECKING:
    from klinket.controller.console.sign_in.oidc.provider import Provider

logger = logging.getLogger(__name__)

#: Requests of one address (IPv6: a /64) to the pages of the sign-in: so many at once, and so many a second after that.
VISIT_BURST = 120
VISITS_PER_SECOND = 4.0
#: What tells a browser that has signed in before, and for how long.
KNOWN_COOKIE = "__Host-known"
KNOWN_MS = 180 * 86_400_000
KNOWN_BYTES = 16
#: Requests to the identity provider at a time.
MAX_PROVIDER_CALLS = 4
#: Sign-ins that may wait for one of them.
MAX_PROVIDER_WAITING = 32


@dataclass
class SignIn:
    """What all pages of the sign-in share. `label`: what the identity provider is called on the button."""

    console: Console
    gate: Gate
    master: MasterKey
    hasher: PasswordHasher
    passkeys: Passkeys
    provider: Provider | None = None
    label: str = ""
    monotonic: Callable[[], float] = time.monotonic
    rates: TokenBuckets = field(default_factory=lambda: TokenBuckets(VISIT_BURST, VISITS_PER_SECOND))
    provider_waiting: int = 0
    provider_turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_PROVIDER_CALLS))

    @property
    def now_ms(self) -> int:
        """Return the time in milliseconds since the epoch."""
        return self.console.now_ms

    def entropy(self, count: int) -> bytes:
        """Return random bytes."""
        return self.console.services.entropy(count)

    def counted(self, request: Request, email: str, proof: Proof) -> Counted:
        """Return what a try for an account counts for."""
        source = source_of(address_of(request))
        try:
            known = unseal(self.master, "known browser", request.cookies.get(KNOWN_COOKIE, ""), self.now_ms)
        except SignInOver:
            known = {}
        device = known.get("id") if known.get("account") == _account(email) else None
        return Counted(source, email.strip(), device, proof)

    def remember_browser(self, response: Response, user: UserRow) -> None:
        """Let a browser be known as one that has signed in to this account: it is counted by itself from now on."""
        values = {"account": _account(user.email), "id": self.entropy(KNOWN_BYTES).hex()}
        text = seal(self.master, "known browser", values, self.now_ms + KNOWN_MS)
        response.set_cookie(KNOWN_COOKIE, text, max_age=KNOWN_MS // 1000, path="/", secure=True, httponly=True, samesite="strict")


def _account(email: str) -> str:
    return hashlib.sha256(email.strip().casefold().encode("utf-8", "surrogatepass")).hexdigest()


@dataclass
class Visit:
    """One request. `session`, `user`: of a sign-in that has begun, at the stage the page is for; or None."""

    sign_in: SignIn
    request: Request
    form: Form = field(default_factory=lambda: Form({}))
    session: ConsoleSessionRow | None = None
    user: UserRow | None = None

    @property
    def browser(self) -> Browser:
        """Return where the request comes from."""
        return Browser(address_of(self.request), self.request.headers.get("user-agent", "")[:300])

    @property
    def next(self) -> str:
        """Return where to go on after the sign-in."""
        return local_path(self.form.text("next") or self.request.query_params.get("next", ""))

    def begun(self) -> tuple[ConsoleSessionRow, UserRow]:
        """Return session and user of a page that is open only to those who have them."""
        assert self.session is not None
        assert self.user is not None
        return self.session, self.user

    def render(self, template: str, error: KlinketError | None = None, **values: Any) -> Response:
        """Return a page made of a template of `sign_in/`; with `error` it says what was wrong, in its status as well."""
        text = self.sign_in.console.templates.render(
            f"sign_in/{template}", page=self, now_ms=self.sign_in.now_ms, notices=[], error=error, **values
        )
        status, headers = (200, {}) if error is None else (status_of(error), headers_of(error))
        return HTMLResponse(text, status, {**PAGE_HEADERS, **headers})

    def lead(self, path: str, *, keep_next: bool = True) -> Response:
        """Lead to a page of the sign-in."""
        query = f"?next={quote(self.next, safe='')}" if keep_next and self.next != ROOT + "/" else ""
        return RedirectResponse(ROOT + path + query, 303, PAGE_HEADERS)

    def welcome(self, text: str, to: str | None = None) -> Response:
        """Lead somebody who is signed in to where they wanted to go, with the session's new text."""
        assert self.user is not None
        response = RedirectResponse(to or self.next, 303, PAGE_HEADERS)
        self.admit(response, text)
        return response

    def admit(self, response: Response, text: str) -> None:
        """Give the browser of somebody who is signed in what it keeps."""
        assert self.user is not None
        set_cookie(response, text)
        self.sign_in.remember_browser(response, self.user)


Handler = Callable[[Visit], Awaitable[Response]]


def visited(sign_in: SignIn, method: str, path: str, handler: Handler, *stages: Stage) -> Route:
    """Return the route of a page of the sign-in. With `stages` it is open only to sessions at one of them."""

    async def guarded(request: Request) -> Response:
        visit = Visit(sign_in, request)
        try:
            sign_in.gate.check_source(request)
            _check_rate(sign_in, request)
            if stages:
                await _begun(visit, stages)
            if method == "POST":
                visit.form = await read_form(request)
                if stages and visit.session is not None:
                    check_form_token(visit.form, visit.session)
            return await handler(visit)
        except _NotHere:
            return visit.lead("/sign-in")
        except SignInOver as error:
            return _over(visit, error)
        except KlinketError as error:
            return sign_in.gate.told(error, request, None)
        except Exception:
            logger.exception("console: %s %s failed", method, path)
            return sign_in.gate.failed(request)

    return Route(ROOT + path, guarded, methods=[method])


class _NotHere(Exception):
    """The page is not the next step of whoever asks."""


async def _begun(visit: Visit, stages: tuple[Stage, ...]) -> None:
    try:
        session, user = await visit.sign_in.gate.session_of(visit.request)
    except AuthenticationFailed:
        raise _NotHere from None
    if session.stage not in {stage.value for stage in stages}:
        raise _NotHere
    visit.session, visit.user = session, user


def _over(visit: Visit, error: SignInOver) -> Response:
    response = visit.render("over.html", error)
    if visit.session is not None and visit.session.stage != Stage.FULL.value and COOKIE in visit.request.cookies:
        clear_cookie(response)
    return response


def _check_rate(sign_in: SignIn, request: Request) -> None:
    wait = sign_in.rates.take(source_of(address_of(request)), sign_in.monotonic())
    if wait:
        raise Throttled.again_in(wait, "too many requests from your address")
