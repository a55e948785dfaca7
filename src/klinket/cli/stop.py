"""`klinket stop`."""

from __future__ import annotations

import click

from klinket.cli import roles


@click.command()
@roles.JSON_OPTION
def stop(as_json: bool) -> None:
    """End this machine's daemon and undo all it did: rules, routes, DNS. As root.

    Also what a daemon left that crashed. Stopping when none runs is no error.

    \b
    example: sudo klinket stop
    """
    from klinket.client.daemon import lifecycle
    from klinket.client.daemon.paths import Paths

    done = lifecycle.stop(Paths.from_environment())
    roles.show(done, {"ok": True, "message": done}, as_json=as_json)
