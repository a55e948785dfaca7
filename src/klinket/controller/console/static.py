"""Style sheets, scripts and pictures: read once, served under an address that changes with their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from klinket.controller.console.headers import PAGE_HEADERS, STATIC_HEADERS

FOLDER = Path(__file__).parent / "static"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class StaticFiles:
    """`address(name)` is what pages link to."""

    def __init__(self) -> None:
        self._files = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.suffix in _TYPES}
        # One for all: a style sheet names its pictures beside it.
        self._digest = hashlib.sha256(b"".join(self._files.values())).hexdigest()[:12]

    def address(self, name: str) -> str:
        """Return the address of a file; raises KeyError for one that is not there."""
        if name not in self._files:
            raise KeyError(name)
        return f"/console/static/{self._digest}/{name}"

    def route(self) -> Route:
        """Return the route of all files; anybody may read them."""
        return Route("/console/static/{digest}/{name}", self._serve)

    async def _serve(self, request: Request) -> Response:
        name, digest = request.path_params["name"], request.path_params["digest"]
        if name not in self._files or digest != self._digest:
            return Response("there is no such file\n", 404, PAGE_HEADERS, "text/plain")
        if request.headers.get("if-none-match") == f'"{digest}"':
            return Response(status_code=304, headers=STATIC_HEADERS)
        return Response(self._files[name], 200, {**STATIC_HEADERS, "ETag": f'"{digest}"'}, _TYPES[Path(name).suffix])
