"""`klinket start`."""

from __future__ import annotations

import sys

import click

from klinket.cli import roles


@click.command()
@click.option(
    "--wait", default=5.0, show_default=True, metavar="SECONDS", help="For the daemon to be usable; it goes on trying after that."
)
@roles.JSON_OPTION
def start(wait: float, as_json: bool) -> None:
    """Start this machine's daemon. As root; by systemd where the unit klinket.service is installed.

    Prints the state the daemon has then, as `klinket status` does. Starting one that runs changes nothing.

    \b
    example: sudo klinket start && klinket wait db.internal:5432
    """
    from klinket.cli.exit_codes import EXIT_CODES
    from klinket.client.daemon import lifecycle
    from klinket.client.daemon.paths import Paths

    roles.check_timeout(wait, "wait", or_none=True)
    status = lifecycle.start(Paths.from_environment(), wait)
    roles.show(status.state, status, as_json=as_json)
    if status.reason:
        click.echo(f"klinket: {status.reason}", err=True)
        click.echo(f"  hint: {status.next_step}", err=True)
    sys.exit(EXIT_CODES.get(lifecycle.ENDS_START.get(status.state, ""), 0))
