"""What pages and actions there are: each area lists its own, with what one must be allowed to do for each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response

from klinket.controller.console.page import Page
from klinket.domain.role import Permission

Handler = Callable[[Page], Awaitable[Response]]
#: Below which path the console is.
ROOT = "/console"


@dataclass(frozen=True, slots=True)
class ConsoleRoute:
    """One page (GET) or action (POST). `path` is below ROOT, in Starlette's form.

    `secret`: it shows or makes a secret: whoever asks has proved lately who they are. `is_live`: pages open it by themselves
    and so it is no use of the session.
    """

    method: str
    path: str
    handler: Handler
    permission: Permission
    secret: bool = False
    is_live: bool = False


def shown(path: str, handler: Handler, permission: Permission = Permission.READ, *, secret: bool = False) -> ConsoleRoute:
    """Return the route of a page."""
    return ConsoleRoute("GET", path, handler, permission, secret)


def changed(path: str, handler: Handler, permission: Permission, *, secret: bool = False) -> ConsoleRoute:
    """Return the route of an action: it takes a form, changes something, and mostly leads to a page."""
    return ConsoleRoute("POST", path, handler, permission, secret)
