"""A relay as who watches it sees it: metrics, and whether it is usable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from klinket.domain.readiness import Readiness, readiness
from klinket.net.clock import PeerClock
from klinket.net.exposition import counter, gauge
from klinket.relay.core import RelayCore
from klinket.relay.forwarding import DatagramForwarding
from klinket.relay.traffic import Drop, RelayTraffic
from klinket.wire.relay import RelayAnswer

if TYPE_CHECKING:
    from prometheus_client.core import Metric


@dataclass
class Observed:
    """The parts of a relay that are looked at. `live`: what its pairs have received, of each the client's side first."""

    core: RelayCore
    clock: PeerClock
    traffic: RelayTraffic
    pairs: Callable[[], int]
    live: Callable[[], Iterable[tuple[int, int]]]
    forwarding: DatagramForwarding
    attached: bool = False

    def attachment(self, attached: bool) -> None:
        """Note that the channel to the controller is up, or is not any more."""
        self.attached = attached

    async def ready(self) -> Readiness:
        """Return whether peers can use this relay now."""
        return readiness(
            (not self.core.draining, "draining", "it is stopping and takes no new pairs"),
            (self.attached, "not-attached", "no live channel to the controller"),
            (self.core.configured, "no-configuration", "the controller has not said yet which tickets count"),
        )

    def metrics(self, uptime: float) -> Iterable[Metric]:
        """Yield the metrics of this moment (docs/reference/metrics.md). `uptime`: seconds."""
        core, traffic = self.core, self.traffic
        yield gauge("klinket_relay_attached", "1 with a live channel to the controller", {}, int(self.attached))
        yield gauge("klinket_relay_pairs", "Pairs that are joined", {}, self.pairs())
        yield gauge("klinket_relay_pairs_limit", "Pairs there can be", {}, core.pairs.capacity)
        yield gauge("klinket_relay_waiting", "Connections that wait for a partner", {}, core.waiting)
        yield gauge("klinket_relay_admissions", "Admissions that count now", {}, core.admissions)
        difference = self.clock.difference
        yield gauge("klinket_relay_clock_difference_seconds", "Own clock less the controller's", {}, difference)
        yield counter("klinket_relay_pairs_total", "Pairs that were joined", (), {(): traffic.pairs})
        yield counter("klinket_relay_admissions_total", "Tickets that were taken", (), {(): traffic.admissions})
        refused: dict[tuple[str, ...], float] = {(word(one),): count for one, count in traffic.refused.items()}
        yield counter("klinket_relay_refused_total", "Tickets and connections refused, by reason", ("reason",), refused)
        from_clients, from_connectors = traffic.from_clients, traffic.from_connectors
        for client, connector in self.live():
            from_clients += client
            from_connectors += connector
        moved: dict[tuple[str, ...], float] = {("clients",): from_clients, ("connectors",): from_connectors}
        yield counter("klinket_relay_received_bytes_total", "Sealed bytes of pairs, by the side they came from", ("from",), moved)
        datagrams = self.forwarding.counts
        yield gauge("klinket_relay_datagram_bindings", "Addresses that datagrams are forwarded to", {}, self.forwarding.bound)
        forwarded: dict[tuple[str, ...], float] = {
            ("clients",): datagrams.datagrams_from_clients,
            ("connectors",): datagrams.datagrams_from_connectors,
        }
        yield counter(
            "klinket_relay_datagrams_total", "Sealed datagrams forwarded, by the side they came from", ("from",), forwarded
        )
        carried: dict[tuple[str, ...], float] = {
            ("clients",): datagrams.bytes_from_clients,
            ("connectors",): datagrams.bytes_from_connectors,
        }
        yield counter("klinket_relay_datagram_bytes_total", "Their bytes", ("from",), carried)
        dropped: dict[tuple[str, ...], float] = {(reason.value,): datagrams.dropped[reason] for reason in Drop}
        yield counter("klinket_relay_datagrams_dropped_total", "Datagrams and binds not taken, by reason", ("reason",), dropped)
        asked: dict[tuple[str, ...], float] = {(): datagrams.challenges}
        yield counter("klinket_relay_bind_challenges_total", "Unproven addresses asked", (), asked)


def word(answer: RelayAnswer) -> str:
    """Return an answer as a label."""
    return answer.name.lower().replace("_", "-")
