"""The stream of live updates: names of topics only, nothing of what has changed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from klinket.controller.app import console_sessions
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute
from klinket.domain.errors import KlinketError
from klinket.domain.role import Permission

#: Seconds between signs of life, at which it is looked whether the session goes on.
LIFE_SECONDS = 5.0


async def _events(page: Page) -> Response:
    token_hash = page.session.token_hash

    async def goes_on() -> bool:
        try:
            rows = await page.read(lambda tx: tx.console_sessions.find(token_hash=token_hash))
        except KlinketError:
            return True  # the store is away for a moment
        return bool(rows) and console_sessions.is_live(rows[0], page.console.now_ms)

    async def told() -> AsyncIterator[str]:
        async with page.console.live.listening(page.user.id) as stream:
            yield "retry: 3000\n\n"
            while await goes_on():
                topics = await stream.next(LIFE_SECONDS)
                yield "".join(f"event: {topic}\ndata:\n\n" for topic in topics) or ": alive\n\n"
            yield "event: over\ndata:\n\n"

    headers = {**PAGE_HEADERS, "X-Accel-Buffering": "no"}
    return StreamingResponse(told(), media_type="text/event-stream", headers=headers)


ROUTES: tuple[ConsoleRoute, ...] = (ConsoleRoute("GET", "/events", _events, Permission.READ, is_live=True),)
