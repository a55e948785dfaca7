"""`klinket version`."""

from __future__ import annotations

import click

from klinket.wire.version import PRODUCT_VERSION


@click.command()
def version() -> None:
    """Print the version, as `klinket --version` does.

    \b
    example: klinket version
    """
    click.echo(f"klinket {PRODUCT_VERSION}")
