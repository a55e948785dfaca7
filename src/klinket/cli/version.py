"""`klinket version`."""

from __future__ import annotations

import click

from klinket.cli import roles
from klinket.wire.version import PRODUCT_VERSION


@click.command()
@roles.JSON_OPTION
def version(as_json: bool) -> None:
    """Print the version, as `klinket --version` does.

    \b
    example: klinket version
    """
    roles.show(f"klinket {PRODUCT_VERSION}", {"version": PRODUCT_VERSION}, as_json=as_json)
