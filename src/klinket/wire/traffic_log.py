"""The traffic log: an event of a flow in the shape that log pipelines know (facts §5), for connectors and the controller.

Ids are the bare internal ids as texts. A connector knows fewer names than the controller; what is not known is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from klinket.domain.flow import FlowFailure
from klinket.wire.control import FlowEvent

#: What the kinds of flow events are called in the log.
EVENT_TYPES = {
    "established": "established_connection",
    "closed": "closed_connection",
    "failed": "failed_to_connect",
    "denied": "denied_access",
}
#: Everything goes in TCP connections: over a relay, or direct, which is told as relay 0.
TUNNEL_PROTOCOL = "tcp"
DIRECT = 0
NORMAL, DNS_ERROR, CONNECTION_FAILED = "NORMAL", "DNS_ERROR", "CONNECTION_FAILED"


@dataclass(frozen=True, slots=True)
class Named:
    """An object by its internal id, with the name it had at that time."""

    id: str
    name: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {"id": self.id, "name": self.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What belongs to an event beside what the connector saw. `rule`: the address of the resource as admins wrote it.

    `key` is of the account; `relay` is (host or IP address, name, port).
    """

    connector: Named
    remote_network: Named
    account: Named
    key: Named
    resource_id: str | None = None
    rule: str | None = None
    relay: tuple[str, str | None, int | None] | None = None
    client_ip: str | None = None


def status_of(kind: str, failure: str | None) -> str:
    """Return how a connection went, in the words of facts §6."""
    if kind in ("established", "closed"):
        return NORMAL
    return DNS_ERROR if failure == FlowFailure.NAME_NOT_FOUND.value else CONNECTION_FAILED


def log_entry(event: FlowEvent, around: Surroundings) -> dict[str, Any]:
    """Return an event as it is logged. `tx`: bytes from the client to the resource, `rx`: back; `duration` in milliseconds."""
    connection: dict[str, Any] = {
        "id": event.flow,
        "client_ip": around.client_ip or event.client_ip,
        "resource_ip": event.resource_ip,
        "resource_port": event.port,
        "protocol": event.protocol,
        "tunnel_path": "direct" if event.relay == DIRECT else "relayed",
        "tunnel_proto": TUNNEL_PROTOCOL,
    }
    if event.event == "closed":
        connection |= {"rx": event.bytes_to_client, "tx": event.bytes_from_client, "duration": event.duration_ms or 0}
    if event.failure is not None and event.event != "closed":
        connection["error_message"] = event.failure
    relay = around.relay
    return {
        "event_type": EVENT_TYPES[event.event],
        "timestamp": event.time_ms,
        "connection": connection,
        "connector": around.connector.to_json(),
        "device": {"id": event.session},
        "resource": {"id": around.resource_id, "address": event.host, "applied_rule": around.rule},
        "remote_network": around.remote_network.to_json(),
        "relays": [] if relay is None else [{"ip": relay[0], "name": relay[1], "port": relay[2]}],
        "service_account": {
            **around.account.to_json(),
            "key": around.key.name,
            "key_id": around.key.id,
        },
    }
