"""`klinket report`."""

from __future__ import annotations

from pathlib import Path

import click

from klinket.cli import roles


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@roles.JSON_OPTION
def report(file: Path | None, as_json: bool) -> None:
    """Write a ZIP with what helps to find a fault: status, settings, log, addresses, rules. As root, to have all of it.

    There is no secret in it: private keys and tokens are taken out, of the environment only names of variables are in it. What
    is in it, names of resources among it, is listed by `unzip -l`.

    \b
    example: sudo klinket report klinket-report.zip
    """
    from klinket.client.daemon import diagnostics
    from klinket.client.daemon.paths import Paths

    written = str(diagnostics.write(Paths.from_environment(), file))
    roles.show(written, {"file": written}, as_json=as_json)
