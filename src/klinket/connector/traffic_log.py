"""The traffic log on stdout: `ANALYTICS ` and JSON, a line for each event of a flow (facts §5)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TextIO

from klinket.domain.resource import Resource
from klinket.wire.control import ConnectorConfiguration, FlowEvent
from klinket.wire.inventory import RelayEntry
from klinket.wire.traffic_log import Named, Surroundings, log_entry

logger = logging.getLogger(__name__)

PREFIX = "ANALYTICS "


class TrafficLog:
    """Prints events with the names a connector knows: the ids of accounts and keys are those of its grants, not the admins'."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._connector = Named("")
        self._remote_network = Named("")
        self._relays: Mapping[int, RelayEntry] = {}

    def configure(self, message: ConnectorConfiguration) -> None:
        """Take over where this connector stands."""
        self._connector, self._remote_network = Named(str(message.connector)), Named(str(message.remote_network))
        self._relays = {relay.id: relay for relay in message.relays}

    def add(self, event: FlowEvent, resource: Resource | None) -> None:
        """Print one event; a reader that went away costs the line, nothing else."""
        try:
            self._stream.write(self.line(event, resource) + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            logger.warning("an event is missing in the traffic log: %s", error)

    def line(self, event: FlowEvent, resource: Resource | None) -> str:
        """Return the line of one event."""
        relay = self._relays.get(event.relay) if event.relay is not None else None
        around = Surroundings(
            connector=self._connector,
            remote_network=self._remote_network,
            account=Named(event.service_account),
            key=Named(event.key),
            resource_id=None if resource is None else str(resource.id),
            rule=None if resource is None else resource.address.text,
            relay=None if relay is None else _relay(relay),
        )
        return PREFIX + json.dumps(log_entry(event, around), separators=(",", ":"))


def _relay(entry: RelayEntry) -> tuple[str, str | None, int | None]:
    host, _, port = entry.address.rpartition(":")
    return host.strip("[]"), None, int(port) if port.isdigit() else None
