"""`klinket forward`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from klinket.cli import roles

if TYPE_CHECKING:
    from klinket.client.forward import Listening


@click.command()
@roles.KEY_FILE_OPTION
@roles.TIMEOUT_OPTION
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, one line when all of them listen.")
@click.option("--log-level", default="error", show_default=True, type=click.Choice(roles.LEVELS))
@click.argument("forwards", nargs=-1, required=True, metavar="RESOURCE[:PORT] [LOCAL] [RESOURCE[:PORT] [LOCAL]]...")
def forward(key_file: str | None, timeout: float, as_json: bool, log_level: str, forwards: tuple[str, ...]) -> None:
    """Listen on ports of this machine that lead to granted resources, until Ctrl-C. Needs no root.

    LOCAL is a port, or a loopback address with one; by default the resource's own port where it is free, else another. It prints
    where it listens. A connection that the resource, or klinket, refuses is reset, and the reason is on stderr.

    \b
    example:
      klinket forward --key-file ci-runner.json db.internal:5432 15432 cache.internal:6379
      psql -h 127.0.0.1 -p 15432
    """
    from klinket.client.forward import parse, run
    from klinket.client.key_source import KeySource

    roles.end_at_ctrl_c()
    source = KeySource(key_file)
    roles.check_timeout(timeout)
    wanted = parse(forwards)
    roles.set_up_logging(log_level)
    roles.forbid_core_dumps()
    key = source.load()
    show = _show_json if as_json else _show_lines
    roles.run_until_stopped(lambda stop: run(key, wanted, timeout, stop, show, lambda line: click.echo(line, err=True)))


def _show_lines(listening: Sequence[Listening]) -> None:
    for one in listening:
        click.echo(f"{one.address} -> {one.destination.host_port}")


def _show_json(listening: Sequence[Listening]) -> None:
    import json

    rows = [
        {
            "listen": str(one.address),
            "host": one.destination.host,
            "port": one.destination.port,
            "resource": one.resource,
            "asked": one.forward.wanted,
        }
        for one in listening
    ]
    click.echo(json.dumps(rows))
