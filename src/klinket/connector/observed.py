"""A connector as who watches it sees it: metrics, and whether it is usable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from klinket.connector.core import ConnectorCore
from klinket.connector.datagram_paths import DatagramPaths
from klinket.connector.traffic import Traffic, Transport
from klinket.domain.readiness import Readiness, readiness
from klinket.net.clock import PeerClock
from klinket.net.exposition import Exposition, counter, gauge
from klinket.net.metrics_endpoint import served
from klinket.net.sockets import HostPort

if TYPE_CHECKING:
    from prometheus_client.core import Metric


@dataclass(frozen=True)
class Observed:
    """The parts of a connector that are looked at. `attached`: to the controller; `relays`: at which it waits."""

    core: ConnectorCore
    traffic: Traffic
    clock: PeerClock
    attached: Callable[[], bool]
    configured: Callable[[], bool]
    relays: Callable[[], list[int]]
    listens: bool
    paths: DatagramPaths

    async def ready(self) -> Readiness:
        """Return whether clients can use this connector now."""
        return readiness(
            (not self.core.draining, "draining", "it is stopping and takes no new flows"),
            (self.attached(), "not-attached", "no live channel to the controller"),
            (self.configured(), "no-configuration", "the controller has not said yet whom to serve"),
            (self.listens or bool(self.relays()), "no-path", "it waits at no relay and does not listen"),
        )

    def metrics(self, uptime: float) -> Iterable[Metric]:
        """Yield the metrics of this moment (docs/reference/metrics.md). `uptime`: seconds."""
        core, traffic = self.core, self.traffic
        yield gauge("klinket_connector_attached", "1 with a live channel to the controller", {}, int(self.attached()))
        yield gauge("klinket_connector_relays", "Relays at which it waits", {}, len(self.relays()))
        yield gauge("klinket_connector_flows", "Live flows", {}, core.flows)
        difference = self.clock.difference
        yield gauge("klinket_connector_clock_difference_seconds", "Own clock less the controller's", {}, difference)
        yield counter("klinket_connector_flows_opened_total", "Flows that reached their resource", (), {(): traffic.opened})
        yield counter("klinket_connector_flows_ended_total", "Flows ended because access did", (), {(): traffic.ended})
        refused: dict[tuple[str, ...], float] = {(one.value,): count for one, count in traffic.refused.items()}
        yield counter("klinket_connector_flows_refused_total", "Flows refused, by reason", ("reason",), refused)
        inbound, outbound = _by_transport(traffic.from_clients()), _by_transport(traffic.to_clients())
        both = {("from_clients", *way): count for way, count in inbound.items()}
        both |= {("to_clients", *way): count for way, count in outbound.items()}
        yield counter("klinket_connector_bytes_total", "Content of flows", ("direction", "transport"), both)
        datagrams = self.paths.counts()
        yield gauge(
            "klinket_connector_datagram_paths", "Sessions that a path of sealed datagrams is open for", {}, self.paths.open_paths
        )
        ways: dict[tuple[str, ...], float] = {("from_clients",): datagrams.received, ("to_clients",): datagrams.sent}
        yield counter("klinket_connector_sealed_datagrams_total", "Sealed datagrams of flows", ("direction",), ways)
        dropped: dict[tuple[str, ...], float] = {(reason,): count for reason, count in datagrams.dropped().items()}
        yield counter("klinket_connector_datagrams_dropped_total", "Datagrams dropped, by reason", ("reason",), dropped)
        challenges: dict[tuple[str, ...], float] = {(): datagrams.challenges}
        yield counter("klinket_connector_datagram_challenges_total", "Unproven addresses asked", (), challenges)
        # The names that dashboards made for Twingate's connector know.
        yield counter("twingate_inbound_bytes_total", "Content from clients", ("transport",), inbound)
        yield counter("twingate_outbound_bytes_total", "Content to clients", ("transport",), outbound)
        yield gauge("twingate_connector_uptime_seconds", "Seconds since the connector began", {}, uptime)


def _by_transport(counts: Mapping[Transport, int]) -> dict[tuple[str, ...], float]:
    return {(transport.value,): count for transport, count in counts.items()}


class Observable(Protocol):
    """A connector, as far as this module needs it."""

    def observed(self) -> Observed: ...
    async def run(self, stop: asyncio.Event) -> None: ...


async def run(connector: Observable, metrics: HostPort | None, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, and its metrics at an address where there is one; raises InvalidInput("metrics")."""
    observed = connector.observed()
    async with served(metrics, lambda: Exposition("connector", observed.metrics), observed.ready):
        await connector.run(stop)
