"""`klinket resources`."""

from __future__ import annotations

import click


@click.command()
@click.argument("what", required=False, type=click.Choice(["list"]), metavar="[list]")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for scripts.")
def resources(what: str | None, as_json: bool) -> None:
    """List what is granted to this machine's service account: tab-separated, with a head line for each section.

    \b
    example: klinket resources
    """
    from klinket.client.daemon import ask
    from klinket.client.daemon.paths import Paths

    rows = ask.ask(Paths.from_environment(), "resources").resources
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    else:
        from klinket.client.daemon.shown import resource_table

        click.echo(resource_table(rows))
