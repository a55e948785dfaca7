"""`klinket wait`."""

from __future__ import annotations

import click

from klinket.cli import roles


@click.command()
@click.argument("resources", nargs=-1, metavar="[RESOURCE[:PORT]]...")
@click.option("--timeout", default=30.0, show_default=True, metavar="SECONDS", help="To be usable.")
@roles.JSON_OPTION
def wait(resources: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Wait until this machine's daemon is usable, and each RESOURCE answers; with :PORT it is dialled as well.

    Prints the state; with --json what `klinket status --json` prints. Ends with 0 once all is well, else with the code of what is
    missing: 65 to 67 key, 68 not granted, 69 no connector, 70 name not found, 71 refused, 72 timed out, 74 controller
    unreachable, 75 capture impossible, 95 no daemon.

    \b
    example: klinket wait db.internal:5432 --timeout 60
    """
    from klinket.cli.run import check_wait
    from klinket.client.daemon import ask
    from klinket.client.daemon.paths import Paths

    roles.check_timeout(timeout, or_none=True)
    for wanted in resources:
        check_wait(wanted)
    answer = ask.wait(Paths.from_environment(), resources, timeout)
    roles.show(answer.state, answer, as_json=as_json)
