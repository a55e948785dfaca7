"""All routes of the console. A new page is a line in its area's ROUTES; a new area is a line here."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from klinket.controller.console import events, overview, policies, search
from klinket.controller.console.activity import audit, cuts, flows, trends
from klinket.controller.console.gate import Gate
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.network import (
    connector_changes,
    connectors,
    remote_networks,
    resource_access,
    resource_changes,
    resources,
)
from klinket.controller.console.route import ROOT, ConsoleRoute
from klinket.controller.console.settings import api_tokens, relays, sinks, trust
from klinket.controller.console.settings import network as network_settings
from klinket.controller.console.sign_in.routes import SignInRoutes
from klinket.controller.console.static import StaticFiles
from klinket.controller.console.team import groups, services, users
from klinket.domain.errors import NotFound

#: Everything that needs a whole session. The first route that fits counts.
PAGES: tuple[ConsoleRoute, ...] = (
    *overview.ROUTES,
    *events.ROUTES,
    *remote_networks.ROUTES,
    *connectors.ROUTES,
    *connector_changes.ROUTES,
    *resources.ROUTES,
    *resource_changes.ROUTES,
    *resource_access.ROUTES,
    *services.ROUTES,
    *users.ROUTES,
    *groups.ROUTES,
    *policies.ROUTES,
    *api_tokens.ROUTES,
    *network_settings.ROUTES,
    *relays.ROUTES,
    *sinks.ROUTES,
    *trust.ROUTES,
    *flows.ROUTES,
    *cuts.ROUTES,
    *trends.ROUTES,
    *audit.ROUTES,
    *search.ROUTES,
)


def console_routes(gate: Gate, static: StaticFiles, sign_in: SignInRoutes) -> list[BaseRoute]:
    """Return the routes of the console."""

    async def nothing_there(request: Request) -> Response:
        if request.url.path == ROOT:
            return RedirectResponse(ROOT + "/", 308, PAGE_HEADERS)
        error = NotFound("Page", request.url.path[:200])
        return gate.told(error, request, None)

    return [
        static.route(),
        *sign_in.open,
        *(gate.route(route) for route in (*PAGES, *sign_in.whole)),
        Route(ROOT, nothing_there),
        Route(ROOT + "/{rest:path}", nothing_there),
    ]
