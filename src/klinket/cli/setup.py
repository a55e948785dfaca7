"""`klinket setup`."""

from __future__ import annotations

import click

from klinket.cli import roles
from klinket.domain.errors import InvalidInput


@click.command()
@click.option(
    "--headless", type=click.Path(readable=False), metavar="FILE|-", help="The service key; - reads it from standard input."
)
@click.option("--no-check", is_flag=True, help="Keep the key without asking the controller whether it takes it.")
@roles.JSON_OPTION
def setup(headless: str | None, no_check: bool, as_json: bool) -> None:
    """Give this machine's daemon its service key. As root.

    A key that cannot be used is refused, and nothing is changed then. Where the controller cannot be reached the key is kept,
    and a line says so. A daemon that runs takes the new key over; flows go on.

    \b
    example: printf %s "$KLINKET_KEY" | sudo klinket setup --headless -
    """
    if headless is None:
        raise InvalidInput(
            "--headless", "no service key was named", hint="klinket setup --headless FILE, or - for standard input"
        )
    from klinket.client.daemon.key_setup import set_up
    from klinket.client.daemon.paths import Paths
    from klinket.client.key_source import KeySource

    roles.set_up_logging("error")
    roles.forbid_core_dumps()
    done = roles.run_async(set_up(KeySource(headless), Paths.from_environment(), check=not no_check))
    for warning in done.warnings:
        click.echo(f"klinket: {warning}", err=True)
    document = {"ok": True, "messages": done.lines, "warnings": done.warnings}
    roles.show("\n".join(done.lines), document, as_json=as_json)
