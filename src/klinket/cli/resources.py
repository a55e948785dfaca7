"""`klinket resources`."""

from __future__ import annotations

import click

from klinket.cli import roles


@click.command()
@click.argument("what", required=False, type=click.Choice(["list"]), metavar="[list]")
@roles.JSON_OPTION
def resources(what: str | None, as_json: bool) -> None:
    """List what is granted to this machine's service account: tab-separated, with a head line for each section.

    \b
    example: klinket resources
    """
    from klinket.client.daemon import ask
    from klinket.client.daemon.paths import Paths
    from klinket.client.daemon.shown import resource_table

    rows = ask.ask(Paths.from_environment(), "resources").resources
    roles.show(resource_table(rows), rows, as_json=as_json)
