"""`klinket status`."""

from __future__ import annotations

import click


@click.command()
@click.option("--verbose", "-v", is_flag=True, help="With the reason, the next step, and all parts.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for scripts.")
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
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    elif verbose:
        from klinket.client.daemon.shown import verbose_status

        click.echo(verbose_status(told))
    else:
        click.echo(told.state)
