"""Taking away what a klinket that died has left. Everything has a constant name, so nothing needs to be remembered."""

from __future__ import annotations

import os

from klinket.client.capture.host import claim, routes, rules, tools
from klinket.domain.errors import CaptureImpossible


def undo() -> None:
    """Take away rules and routes, if there are any; harmless to repeat. Blocks.

    Raises CaptureImpossible when a klinket captures this machine right now, or a tool fails.
    """
    try:
        tools.find(tools.NFT)
    except CaptureImpossible:
        return  # nothing was ever captured without it
    held = claim.take()
    try:
        undo_claimed()
    finally:
        os.close(held)


def undo_claimed() -> None:
    """Do the same for one that has the claim already."""
    for version in tools.VERSIONS:
        tools.run(tools.ip(version, force=True), routes.undo(version))
    tools.run(tools.NFT, rules.remove())


def left_resources() -> list[str]:
    """Return the addresses that rules of a klinket that died still reject, as texts of networks; [] without such rules."""
    found: list[str] = []
    for version in (4, 6):
        try:
            text = tools.run(("nft", "list", "set", *rules.TABLE.split(), f"resources{version}"))
        except CaptureImpossible:
            continue
        _, _, listed = text.partition("elements = {")
        found += [element.strip() for element in listed.partition("}")[0].split(",") if element.strip()]
    return found
