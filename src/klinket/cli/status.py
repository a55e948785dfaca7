"""`klinket status`."""

from __future__ import annotations

import click

from klinket.cli import roles


@click.command()
@click.option("--verbose", "-v", is_flag=True, help="With the reason, the next step, and all parts.")
@roles.JSON_OPTION
@click.option("-d", "ignored", is_flag=True, hidden=True)
def status(verbose: bool, as_json: bool, ignored: bool) -> None:
    """Say the state of this machine's daemon in one word: `online`, or another.

    `online` means usable: logged in, rules and DNS in place, and a connector of each granted network reached. The words are
    stable; no other holds "online". The exit code is 0 for every word: `klinket wait` has codes.

    \b
    example: [ "$(klinket status)" = online ]
    """
    from klinket.client.daemon import ask
    from klinket.client.daemon.paths import Paths

    told = ask.status(Paths.from_environment())
    text = told.state
    if verbose:
        from klinket.client.daemon.shown import verbose_status

        text = verbose_status(told)
    roles.show(text, told, as_json=as_json)
