"""One request of somebody who is signed in: who asks, the store, and the answers a page can give."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from klinket.controller.app import console_sessions
from klinket.controller.app.ports import Actor, Store, Transaction
from klinket.controller.app.rows import ConsoleSessionRow, UserRow
from klinket.controller.config import ControllerConfig
from klinket.controller.console.form import Form
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.live import LiveTopics
from klinket.controller.console.notices import Notice, Notices
from klinket.controller.console.sent_forms import SentForms
from klinket.controller.console.templates import Templates
from klinket.controller.exports import Exports
from klinket.controller.graphql.context import ApiServices
from klinket.controller.http_status import headers_of, status_of
from klinket.controller.peers import Peers
from klinket.controller.request import address_of
from klinket.controller.trust import Trust
from klinket.domain.audit import ActorType, RequestIds
from klinket.domain.errors import KlinketError, NotFound
from klinket.domain.role import Permission, permissions_of

T = TypeVar("T")


@dataclass(frozen=True)
class Console:
    """What all pages share. `services`: as of the Admin API; `clock`: seconds since the epoch."""

    config: ControllerConfig
    store: Store
    trust: Trust
    peers: Peers
    services: ApiServices
    templates: Templates
    live: LiveTopics
    exports: Exports
    clock: Callable[[], float]
    notices: Notices = field(default_factory=Notices)
    sent_forms: SentForms = field(default_factory=SentForms)

    @property
    def now_ms(self) -> int:
        """Return the time in milliseconds since the epoch."""
        return round(self.clock() * 1000)


@dataclass
class Page:
    """A request that the gate has let in. `form`: of an action; of a page it is empty."""

    console: Console
    request: Request
    user: UserRow
    session: ConsoleSessionRow
    form: Form = field(default_factory=lambda: Form({}))

    @property
    def actor(self) -> Actor:
        """Return who acts, for use cases and the audit."""
        agent = self.request.headers.get("user-agent")
        source = address_of(self.request)
        return Actor(ActorType.USER, str(self.user.id), self.user.email, source, RequestIds(user_agent=agent and agent[:300]))

    def may(self, permission: Permission) -> bool:
        """Return whether the user's role allows something."""
        return permission in permissions_of(self.user.role)

    @property
    def is_fragment(self) -> bool:
        """Return whether htmx asks for a part of a page."""
        return self.request.headers.get("hx-request") == "true"

    @property
    def is_freshly_proved(self) -> bool:
        """Return whether the user has proved lately who they are: secrets may be shown."""
        return console_sessions.is_freshly_proved(self.session, self.console.now_ms)

    def query(self, name: str, default: str = "") -> str:
        """Return a value of the address's query, without blanks around it."""
        return self.request.query_params.get(name, default).strip()

    def number(self, name: str = "id") -> int:
        """Return a number of the path; raises NotFound for one that no row can have."""
        number = int(self.request.path_params[name])
        if number >= 1 << 31:
            raise NotFound("Object", number)
        return number

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """Run a query on a snapshot."""
        return await self.console.store.read(query)

    async def write(self, change: Callable[[Transaction], T]) -> T:
        """Run a change; when it raises, nothing of it stays."""
        return await self.console.store.write(change)

    async def carry_out(
        self,
        change: Callable[[Transaction], T],
        again: Callable[[Page, KlinketError], Awaitable[Response]],
        done: Callable[[T], Response],
    ) -> Response:
        """Run a change and answer with `done` of what it returned; where it is refused, with `again`: the page, and why."""
        try:
            made = await self.write(change)
        except KlinketError as error:
            return await again(self, error)
        return done(made)

    def render(self, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> Response:
        """Return a page, or a part of one, made of a template."""
        text = self.console.templates.render(
            template,
            page=self,
            now_ms=self.console.now_ms,
            notices=[] if self.is_fragment else self.console.notices.take(self.session.id),
            error=values.pop("error", None),
            **values,
        )
        return HTMLResponse(text, status, {**PAGE_HEADERS, **(headers or {})})

    def refuse(self, template: str, error: KlinketError, **values: Any) -> Response:
        """Return the page of a form once more, with what was wrong; what was typed is in `page.form`."""
        return self.render(template, status=status_of(error), headers=headers_of(error), error=error, **values)

    def redirect(self, path: str, notice: Notice | str | None = None) -> Response:
        """Lead to a page below the console's root, where `notice` is shown."""
        if notice is not None:
            self.console.notices.add(self.session.id, Notice(notice) if isinstance(notice, str) else notice)
        if self.is_fragment:
            return Response(status_code=204, headers={**PAGE_HEADERS, "HX-Redirect": "/console" + path})
        return RedirectResponse("/console" + path, 303, PAGE_HEADERS)
