"""Looks whether the rules of this machine are still what klinket made them: firewalls flush them, network daemons tidy up."""

from __future__ import annotations

import re

from klinket.client.capture.host import routes, rules, tools
from klinket.domain.errors import CaptureImpossible

_PREFERENCE = re.compile(r"^([0-9]+):", re.MULTILINE)


def listing() -> str:
    """Return klinket's table as `nft` lists it, without the elements of its sets; "" when it is not there. Blocks."""
    try:
        return tools.run(("nft", "-t", "list", "table", *rules.TABLE.split()))
    except CaptureImpossible:
        return ""


def missing_preferences(version: int) -> list[int]:
    """Return the preferences of klinket's routing rules of IPv4 (4) or IPv6 (6) that are not there. Blocks."""
    found = {int(number) for number in _PREFERENCE.findall(tools.run(("ip", f"-{version}", "rule", "show")))}
    return [preference for preference in routes.preferences(version) if preference not in found]
