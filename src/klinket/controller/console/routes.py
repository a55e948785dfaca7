"""All routes of the console. A new page is a line in its area's ROUTES; a new area is a line here."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from klinket.controller.console import events, overview
from klinket.controller.console.gate import Gate
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.network import remote_networks
from klinket.controller.console.page import Console
from klinket.controller.console.route import ROOT, ConsoleRoute
from klinket.controller.console.static import StaticFiles
from klinket.domain.errors import NotFound

#: Everything that needs a whole session. The first route that fits counts.
PAGES: tuple[ConsoleRoute, ...] = (*overview.ROUTES, *events.ROUTES, *remote_networks.ROUTES)


def console_routes(console: Console, static: StaticFiles) -> list[BaseRoute]:
    """Return the routes of the console."""
    gate = Gate(console)

    async def nothing_there(request: Request) -> Response:
        if request.url.path == ROOT:
            return RedirectResponse(ROOT + "/", 308, PAGE_HEADERS)
        error = NotFound("Page", request.url.path[:200])
        return gate.told(error, request, None)

    return [
        static.route(),
        *(gate.route(route) for route in PAGES),
        Route(ROOT, nothing_there),
        Route(ROOT + "/{rest:path}", nothing_there),
    ]
