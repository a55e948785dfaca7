"""Flow events of connectors: kept once each, with the names of that time, for as long and as many as configured."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from klinket.controller.app import flow_totals, live_flows
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import FlowEventRow
from klinket.domain.errors import ProtocolError
from klinket.domain.flow import PROTOCOLS
from klinket.domain.printable import printable
from klinket.wire.control import FlowEvent
from klinket.wire.traffic_log import EVENT_TYPES, Named, Surroundings, log_entry, status_of

#: Events of one batch.
MAX_BATCH_EVENTS = 1_000
#: Events kept by default; the oldest go first (`--flow-events`).
DEFAULT_MAX_EVENTS = 200_000
#: Days for which an event is kept by default (`--flow-days`).
DEFAULT_DAYS = 30
#: Events forgotten in one transaction.
FORGET_STEP = 1_000
#: Events read at a time.
PAGE_EVENTS = 500
DAY_MS = 24 * 3_600_000
_MAX_WHOLE = (1 << 53) - 1
#: Kinds with which a connection is over.
FINISHED = ("closed", "failed", "denied")


def keep(tx: Transaction, connector_id: int, batch: int, events: Sequence[FlowEvent]) -> int:
    """Store a batch; one that was stored before is not stored again. Returns how many events were new.

    Raises ProtocolError for what no connector sends.
    """
    if not 0 <= batch <= _MAX_WHOLE:
        raise ProtocolError("a batch of flow events with a number out of its range")
    if tx.flow_events.find(connector_id=connector_id, batch=batch, number=0):
        return 0
    if len(events) > MAX_BATCH_EVENTS:
        raise ProtocolError(f"a batch of {len(events)} flow events, the limit is {MAX_BATCH_EVENTS}")
    checked = [_checked(event, tx.now_ms) for event in events]
    live = {(row.flow, row.resource_id): row.id for row in tx.live_flows.find(connector_id=connector_id, flow=_flows(checked))}
    names = _Names(tx, connector_id, checked, live.keys())
    checked = [names.within_reach(event) for event in checked]
    stored = [_row(names, connector_id, batch, number, event) for number, event in enumerate(checked)]
    tx.flow_events.add_all(stored)
    live_flows.follow(tx, connector_id, {flow: id for (flow, _), id in live.items()}, checked, stored)
    flow_totals.add(tx, checked, stored)
    return len(checked)


def _flows(events: Sequence[FlowEvent]) -> set[str]:
    return {event.flow for event in events}


def _checked(event: FlowEvent, now_ms: int) -> FlowEvent:
    """Return an event with nothing in it that could not be shown: a connector may be in strange hands."""
    if event.event not in EVENT_TYPES or event.protocol not in PROTOCOLS:
        raise ProtocolError(f"a flow event of an unknown kind: {event.event[:40]!r}, {event.protocol[:40]!r}")
    if event.duration_ms is not None and event.duration_ms < 0:
        # Of a connector whose clock was set back: refused, the batch would come again and again, and end each of its channels.
        event = replace(event, duration_ms=0)
    whole = (event.port, event.bytes_from_client, event.bytes_to_client, event.duration_ms or 0, event.resource or 0)
    if not all(0 <= value <= _MAX_WHOLE for value in whole) or event.port > 65_535:
        raise ProtocolError("a flow event with a number out of its range")
    return replace(
        event,
        flow=printable(event.flow[:64]),
        time_ms=min(max(0, event.time_ms), now_ms),
        session=printable(event.session[:64]),
        service_account=printable(event.service_account[:64]),
        key=printable(event.key[:64]),
        host=printable(event.host[:253]),
        resource_ip=None if event.resource_ip is None else printable(event.resource_ip[:45]),
        client_ip=None if event.client_ip is None else printable(event.client_ip[:45]),
        failure=None if event.failure is None else printable(event.failure[:40]),
    )


class _Names:
    """Who and what the events of a batch name, read with one statement a table."""

    def __init__(
        self, tx: Transaction, connector_id: int, events: Sequence[FlowEvent], begun: Collection[tuple[str, int | None]]
    ) -> None:
        """`begun`: flows that live, each with its resource."""

        def given(values: Collection[Any]) -> set[Any]:
            return {value for value in values if value is not None}

        self.accounts = {
            row.uuid: row for row in tx.service_accounts.find(uuid=given([event.service_account for event in events]))
        }
        self.keys = {row.kid: row for row in tx.service_keys.find(kid=given([event.key for event in events]))}
        self.resources = {row.id: row for row in tx.resources.find(id=given([event.resource for event in events]))}
        self.sessions = {row.id: row for row in tx.sessions.find(id=given([event.session for event in events]))}
        self.relays = {row.id: row for row in tx.relays.find()}
        self.begun = begun
        self._around: dict[tuple[Any, ...], Surroundings] = {}
        self.connector = tx.connectors.get(connector_id)
        self.network = None if self.connector is None else tx.remote_networks.get(self.connector.remote_network_id)

    def within_reach(self, event: FlowEvent) -> FlowEvent:
        """Return the event without its resource where that is in another remote network than the connector.

        One that was moved away meanwhile still ends flows there: those that were told as begun.
        """
        resource = None if event.resource is None else self.resources.get(event.resource)
        if resource is None or (self.network is not None and resource.remote_network_id == self.network.id):
            return event
        return event if (event.flow, resource.id) in self.begun else replace(event, resource=None)

    def around(self, connector_id: int, event: FlowEvent) -> Surroundings:
        """Return the names of one event."""
        of = event.service_account, event.key, event.resource, event.relay, event.session
        found = self._around.get(of)
        if found is None:
            found = self._around[of] = self._made(connector_id, event)
        return found

    def _made(self, connector_id: int, event: FlowEvent) -> Surroundings:
        account, key = self.accounts.get(event.service_account), self.keys.get(event.key)
        resource = self.resources.get(event.resource) if event.resource is not None else None
        relay = self.relays.get(event.relay) if event.relay is not None else None
        session = self.sessions.get(event.session)
        host, _, port = (relay.address or "").rpartition(":") if relay is not None else ("", "", "")
        return Surroundings(
            connector=Named(str(connector_id), self.connector.name if self.connector else None),
            remote_network=Named(str(self.network.id), self.network.name) if self.network else Named(""),
            account=Named(str(account.id), account.name) if account else Named(event.service_account),
            key=Named(str(key.id), key.name) if key else Named(event.key),
            resource_id=None if event.resource is None else str(event.resource),
            rule=None if resource is None else resource.address,
            relay=None if relay is None else (host.strip("[]"), relay.name, int(port) if port.isdigit() else None),
            client_ip=None if session is None else session.address,
        )


def _row(names: _Names, connector_id: int, batch: int, number: int, event: FlowEvent) -> dict[str, Any]:
    account, key = names.accounts.get(event.service_account), names.keys.get(event.key)
    entry = log_entry(event, names.around(connector_id, event))
    return {
        "connector_id": connector_id,
        "batch": batch,
        "number": number,
        "time_ms": event.time_ms,
        "kind": event.event,
        "flow": event.flow,
        "service_account_id": account.id if account else None,
        "service_key_id": key.id if key else None,
        "resource_id": event.resource,
        "remote_network_id": names.network.id if names.network else None,
        "failure": event.failure,
        "event": {**entry, "status": status_of(event.event, event.failure)},
    }


# ---- retention


def forget(tx: Transaction, *, days: int, max_events: int) -> int:
    """Delete at most FORGET_STEP events that are too old or too many; returns how many, so that callers can go on."""
    old = tx.flow_events.select("time_ms", FORGET_STEP, below={"time_ms": tx.now_ms - days * DAY_MS})
    removed = tx.flow_events.remove(id=[row.id for row in old]) if old else 0
    oldest, newest = tx.flow_events.select("id", 1), tx.flow_events.newest(1)
    if removed < FORGET_STEP and oldest and newest:
        # Ids grow by one per event; gaps, where old events went before, only make it keep a few less.
        bound = min(newest[0].id - max_events + 1, oldest[0].id + FORGET_STEP - removed)
        removed += tx.flow_events.remove_below("id", bound)
    tx.flow_totals.remove_below("hour_ms", tx.now_ms - days * DAY_MS)
    tx.flow_hours.remove_below("hour_ms", tx.now_ms - days * DAY_MS)
    return removed


# ---- exports


@dataclass(frozen=True, slots=True)
class Connection:
    """A finished connection: its last event, and the one with which it was established, if there was one."""

    last: FlowEventRow
    established: FlowEventRow | None


def page(tx: Transaction, after_id: int, begin_ms: int | None, end_ms: int | None, **equal: Any) -> list[FlowEventRow]:
    """Return up to PAGE_EVENTS events of a time range in the order in which they came; `begin_ms` is in it, `end_ms` is not."""
    least = {"id": after_id + 1} | ({} if begin_ms is None else {"time_ms": begin_ms})
    return tx.flow_events.select("id", PAGE_EVENTS, least=least, below={} if end_ms is None else {"time_ms": end_ms}, **equal)


def connections(tx: Transaction, rows: Sequence[FlowEventRow]) -> Iterator[Connection]:
    """Yield the connections that ended with these events."""
    flows = {row.flow for row in rows}
    begun = {(row.connector_id, row.flow): row for row in tx.flow_events.find(flow=flows, kind="established")}
    for row in rows:
        yield Connection(row, begun.get((row.connector_id, row.flow)))
