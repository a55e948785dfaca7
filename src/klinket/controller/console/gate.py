"""Who gets in: every page and action of the console passes here, and nothing of a handler runs before."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from klinket.controller import path_ids
from klinket.controller.app import console_sessions
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.rows import ConsoleSessionRow, UserRow
from klinket.controller.console.form import TOKEN_FIELD, Form, read_form
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.page import Console, Page
from klinket.controller.console.route import ROOT, ConsoleRoute
from klinket.controller.http_status import headers_of, status_of
from klinket.controller.request import address_of
from klinket.controller.seats import proven
from klinket.domain.errors import AuthenticationFailed, Forbidden, KlinketError, Throttled
from klinket.domain.role import Permission
from klinket.domain.token_buckets import TokenBuckets

logger = logging.getLogger(__name__)

#: `__Host-`: set by this host over TLS only, for all of it, and by no other name (RFC 6265bis, 4.1.3.2).
COOKIE = "__Host-sid"
#: Of requests that an open page makes by itself: they are no use of the session, which ends without any after a while.
LIVE_HEADER = "x-klinket-live"
SIGN_IN_PATH = ROOT + "/sign-in"
PROVE_PATH = ROOT + "/prove"
#: Requests of one user: so many at once, and so many a second after that.
REQUEST_BURST = 300
REQUESTS_PER_SECOND = 30.0


class Gate:
    """Lets requests through to handlers. `monotonic`: seconds on a clock that does not go back."""

    def __init__(self, console: Console, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._monotonic = monotonic
        self._rates = TokenBuckets(REQUEST_BURST, REQUESTS_PER_SECOND)
        url = urlsplit(console.config.public_url)
        #: Paths that can be opened: an action that has a page of the same path comes from there.
        self._pages: set[str] = set()
        self._origin = f"{url.scheme}://{url.netloc}".lower()

    def route(self, route: ConsoleRoute) -> Route:
        """Return Starlette's route of a page or action."""
        if route.method == "GET":
            self._pages.add(route.path)
        return Route(ROOT + route.path.replace(":int}", f":{path_ids.NAME}}}"), self._guarded(route), methods=[route.method])

    def _guarded(self, route: ConsoleRoute) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            page: Page | None = None
            try:
                self.check_source(request)
                session, user = await self.session_of(request)
                page = Page(self._console, request, user, session)
                if session.stage != Stage.FULL.value:
                    return _to_sign_in(request, route)
                self._check_rate(user)
                proven(request, f"console user {user.id}")
                if route.method == "POST":
                    page.form = await read_form(request)
                    check_form_token(page.form, session)
                if not page.may(route.permission):
                    raise Forbidden(f"your role {user.role} does not allow this", hint=_who_may(route.permission))
                if not route.is_live and LIVE_HEADER not in request.headers:
                    await self._note_seen(session, address_of(request))
                if route.secret and not page.is_freshly_proved:
                    return _to_proof(request, route, has_page=route.path in self._pages)
                return await route.handler(page)
            except KlinketError as error:
                if isinstance(error, AuthenticationFailed) and not isinstance(error, Forbidden):
                    return _to_sign_in(request, route)
                return self.told(error, request, page)
            except Exception:
                logger.exception("console: %s %s failed", route.method, route.path)
                return self.failed(request, page)

        return guarded

    # ---- the checks, for the pages of the sign-in as well

    def check_source(self, request: Request) -> None:
        """Raise Forbidden for a request that another site has made: the browser says so, and cannot be made to lie.

        Pages may be reached by a link from elsewhere; actions and parts of pages may not.
        """
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        if request.method in ("GET", "HEAD") and request.headers.get("hx-request") is None:
            return
        # Without a referrer, which the policy forbids, a browser's own form says "null" here, as any other site's might.
        told = origin is not None and not (origin == "null" and site is not None)
        if told and origin is not None and origin.lower() != self._origin:
            raise Forbidden("this was sent by another site", hint=f"open the console at {self._origin}{ROOT}/")
        if site not in ("same-origin", None) or (site is None and origin is None):
            raise Forbidden("this was not sent by the console", hint=f"open the console at {self._origin}{ROOT}/")

    async def session_of(self, request: Request) -> tuple[ConsoleSessionRow, UserRow]:
        """Return session and user of a request, at whatever stage; raises AuthenticationFailed."""
        text = request.cookies.get(COOKIE, "")
        if not text:
            raise AuthenticationFailed(console_sessions.OVER, hint=console_sessions.OVER_HINT)
        return await self._console.store.read(lambda tx: console_sessions.by_text(tx, text))

    def told(self, error: KlinketError, request: Request, page: Page | None) -> Response:
        """Return an error as a page, or as a part of one where htmx asked."""
        status = 500 if isinstance(error, _Failed) else status_of(error)
        fragment = request.headers.get("hx-request") == "true"
        text = self._console.templates.render(
            "error_part.html" if fragment else "error.html", page=page, error=error, status=status, notices=[], now_ms=0
        )
        return HTMLResponse(text, status, {**PAGE_HEADERS, **headers_of(error)})

    def failed(self, request: Request, page: Page | None = None) -> Response:
        """Return that something is wrong with the controller itself; what it is is in its log."""
        return self.told(_Failed("this page could not be made"), request, page)

    def _check_rate(self, user: UserRow) -> None:
        wait = self._rates.take(str(user.id), self._monotonic())
        if wait:
            raise Throttled.again_in(wait, "too many requests")

    async def _note_seen(self, session: ConsoleSessionRow, address: str) -> None:
        if self._console.now_ms - session.last_seen_ms < console_sessions.SEEN_NOTED_MS:
            return
        try:
            await self._console.store.write(lambda tx: console_sessions.note_seen(tx, session.id, address))
        except KlinketError as error:  # the page itself may still be shown
            logger.warning("console: that session %d was seen is not noted: %s", session.id, error.message)


class _Failed(KlinketError):
    default_hint = "try again; the controller's log says what happened"


def check_form_token(form: Form, session: ConsoleSessionRow) -> None:
    """Raise Forbidden unless the form was made for this session."""
    if not hmac.compare_digest(form.raw(TOKEN_FIELD).encode(), session.form_token.encode()):
        raise Forbidden("this form belongs to another session", hint="open the page again and send it once more")


def set_cookie(response: Response, text: str) -> None:
    """Give the browser its session."""
    response.set_cookie(COOKIE, text, path="/", secure=True, httponly=True, samesite="lax")


def clear_cookie(response: Response) -> None:
    """Take the session from the browser."""
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")


def local_path(text: str) -> str:
    """Return where to go on after a sign-in: a path of the console, whatever was asked for."""
    clean = text.startswith(ROOT + "/") and "\\" not in text and not any(ord(char) < 33 for char in text)
    return text if clean and len(text) <= 500 else ROOT + "/"


def _next_of(request: Request, route: ConsoleRoute) -> str:
    """Return the page to come back to: what was asked for, or for an action the page it was on."""
    if route.method == "GET" and request.headers.get("hx-request") is None:
        return request.url.path + (f"?{request.url.query}" if request.url.query else "")
    current = urlsplit(request.headers.get("hx-current-url", "")).path
    return local_path(current)


def _to(address: str, request: Request) -> Response:
    if request.headers.get("hx-request") == "true":
        return Response(status_code=204, headers={**PAGE_HEADERS, "HX-Redirect": address})
    return RedirectResponse(address, 303, PAGE_HEADERS)


def _to_sign_in(request: Request, route: ConsoleRoute) -> Response:
    return _to(f"{SIGN_IN_PATH}?next={quote(local_path(_next_of(request, route)), safe='')}", request)


def _to_proof(request: Request, route: ConsoleRoute, *, has_page: bool) -> Response:
    back = request.url.path if has_page and route.method == "POST" else _next_of(request, route)
    return _to(f"{PROVE_PATH}?next={quote(local_path(back), safe='')}", request)


def _who_may(permission: Permission) -> str:
    return (
        "ask somebody with the role ADMIN or DEVOPS" if permission is Permission.NETWORK else "ask somebody with the role ADMIN"
    )
