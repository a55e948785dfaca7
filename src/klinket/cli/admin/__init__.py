"""`klinket admin`: the public Admin API from a shell, one file a noun."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import click

from klinket.cli.admin.api import AdminApiClient
from klinket.domain.errors import InvalidInput

_F = TypeVar("_F", bound=Callable[..., Any])


class LazyGroup(click.Group):
    """A group whose commands are imported when they are looked up: `MODULES` maps a name to `module:attribute`."""

    MODULES: ClassVar[dict[str, str]] = {
        "network": "klinket.cli.admin.network:network",
        "connector": "klinket.cli.admin.connector:connector",
        "resource": "klinket.cli.admin.resource:resource",
        "service": "klinket.cli.admin.service:service",
        "session": "klinket.cli.admin.session:session",
        "group": "klinket.cli.admin.group:group",
        "user": "klinket.cli.admin.user:user",
        "policy": "klinket.cli.admin.policy:policy",
        "device": "klinket.cli.admin.device:device",
        "serial-number": "klinket.cli.admin.serial_number:serial_number",
        "cut": "klinket.cli.admin.cut:cut",
        "explain": "klinket.cli.admin.explain:explain",
        "token": "klinket.cli.admin.token:token",
        "audit": "klinket.cli.admin.audit:audit",
        "flow": "klinket.cli.admin.flow:flow",
        "relay": "klinket.cli.admin.relay:relay",
        "sink": "klinket.cli.admin.sink:sink",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names without importing anything."""
        return list(self.MODULES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return one command."""
        from importlib import import_module

        where = self.MODULES.get(name)
        if where is None:
            return None
        module, attribute = where.split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.command(cls=LazyGroup)
@click.option("--url", envvar="KLINKET_URL", metavar="URL", help="The controller, https://HOST:PORT.")
@click.option(
    "--ca",
    envvar="KLINKET_CA",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="The controller's authority (PEM), if it is its own.",
)
@click.pass_context
def admin(ctx: click.Context, url: str | None, ca: str | None) -> None:
    """Manage the network: what it holds, who may reach what, keys, cuts and API tokens; read audit and network events.

    The API token is read from KLINKET_API_TOKEN, never from the command line.

    \b
    example:
      export KLINKET_URL=https://klinket.example.com KLINKET_API_TOKEN=...
      klinket admin service create ci
    """
    ctx.obj = {"url": url, "ca": ca}


def with_api(command: _F) -> _F:
    """Give a command `api` (AdminApiClient) and `as_json`, with its `--json` option."""

    @click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for scripts.")
    @click.pass_context
    @functools.wraps(command)
    def wrapped(ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
        import os

        settings = ctx.find_object(dict) or {}
        url, token = settings.get("url"), os.environ.get("KLINKET_API_TOKEN", "")
        if not url:
            raise InvalidInput("url", "which controller?", hint="set KLINKET_URL, e.g. https://klinket.example.com")
        if not token:
            raise InvalidInput("token", "no API token", hint="set KLINKET_API_TOKEN; the controller's first start prints one")
        return command(*args, api=AdminApiClient(url, token, settings.get("ca")), **kwargs)

    return wrapped  # type: ignore[return-value]
