"""`klinket stop`."""

from __future__ import annotations

import click


@click.command()
def stop() -> None:
    """End this machine's daemon and undo all it did: rules, routes, DNS. As root.

    Also what a daemon left that crashed. Stopping when none runs is no error.

    \b
    example: sudo klinket stop
    """
    from klinket.client.daemon import lifecycle
    from klinket.client.daemon.paths import Paths

    click.echo(lifecycle.stop(Paths.from_environment()))
