"""Team > Services: service accounts, their keys, access, sessions and flows."""

from __future__ import annotations

from klinket.controller.console.route import ConsoleRoute
from klinket.controller.console.team.services import accounts, all_keys, keys, limits, resources, sessions

ROUTES: tuple[ConsoleRoute, ...] = (
    *accounts.ROUTES,
    *all_keys.ROUTES,
    *keys.ROUTES,
    *limits.ROUTES,
    *resources.ROUTES,
    *sessions.ROUTES,
)
