"""What `klinket status -v` and `klinket resources` print."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from klinket.client.daemon.protocol import ResourceRow, StatusReport

#: The fourth column of resources: a service account is never asked for anything but its key.
AUTH_STATUS = "Granted to the service account"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def verbose_status(told: StatusReport) -> str:
    """Return a line for the state, as `Online: who`, and one for each part."""
    state = told.state.replace("-", " ").capitalize()
    lines = [f"{state}: {told.reason or f'service account {told.service_account} with key {told.key}'}"]
    if told.next_step:
        lines.append(f"Next: {told.next_step}")
    if told.pid:
        lines += [
            f"Network: {told.network}",
            f"Key: {told.key}, {f'until {told.key_expires_at}' if told.key_expires_at else 'does not expire'}",
            f"Session: {told.session or 'none'}",
            f"Controller: {told.controller}",
            f"Rules: {_there(told.rules) if told.capture == 'on' else 'capture is off'}",
            f"DNS: {_there(told.dns) if told.capture == 'on' else 'capture is off'}",
            *(f"Proxy: {proxy}" for proxy in told.proxies),
            *(
                f"Remote network of {row.resource}: {'reached' if row.reached else row.problem or 'not reached'}"
                for row in told.networks
            ),
            f"Resources: {told.resources}{'' if told.resources else ' (nothing is granted to this service account)'}",
            f"Flows: {told.flows}{f', {told.retiring_sessions} former sessions' if told.retiring_sessions else ''}",
            *(f"Problem: {problem}" for problem in told.problems),
            f"Daemon: klinket {told.version}, process {told.pid}, for {max(0, time.time() - told.since):.0f} s",
        ]
    return "\n".join(map(_clean, lines))


def _there(it: bool) -> str:
    return "in place" if it else "not in place"


def resource_table(rows: Sequence[ResourceRow]) -> str:
    """Return the sections with their columns, separated by tabs; no name can break a line."""
    lines = []
    for title, visible in (("MAIN RESOURCES", True), ("BACKGROUND RESOURCES", False)):
        section = [row for row in rows if row.visible is visible]
        if section or visible:
            lines += [title, "RESOURCE NAME\tADDRESS\tALIAS\tAUTH STATUS"]
            lines += ["\t".join((_clean(row.name), row.address, row.alias or "-", AUTH_STATUS)) for row in section]
    return "\n".join(lines)


def _clean(text: str) -> str:
    return _CONTROL.sub(" ", text)
