"""Prometheus metrics of the controller. Labels have few, known values: nothing of a peer's choosing becomes a label."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from klinket.controller.peers import Peers
from klinket.net.exposition import Exposition


class Metrics:
    """Counters and gauges, and their text."""

    def __init__(self, peers: Peers) -> None:
        self._registry = CollectorRegistry()
        self.exposition = Exposition("controller", registry=self._registry)
        attached = Gauge("klinket_attached_peers", "Attached live channels", ["role"], registry=self._registry)
        attached.labels("client").set_function(lambda: len(peers.clients))
        attached.labels("connector").set_function(lambda: len(peers.connectors))
        attached.labels("relay").set_function(lambda: len(peers.relays))
        self.logins = Counter("klinket_logins_total", "Logins by outcome", ["outcome"], registry=self._registry)
        self.enrolments = Counter(
            "klinket_enrolments_total", "Enrolments of connectors by outcome", ["outcome"], registry=self._registry
        )
        self.punches = Counter("klinket_punches_total", "Hole punching by outcome", ["outcome"], registry=self._registry)

        self._connectors = Gauge(
            "klinket_connectors", "Connectors that have been attached, now or before", registry=self._registry
        )
        self._receipts = Gauge(
            "klinket_cut_receipts_pending", "Answers to cuts still waited for while grants count", registry=self._registry
        )
        self._expiring = Gauge(
            "klinket_service_keys_expiring",
            "Active service keys that expire within so many days",
            ["days"],
            registry=self._registry,
        )

    def set_expiring(self, counts: Mapping[int, int]) -> None:
        """Take over how many keys expire within how many days."""
        for days, count in counts.items():
            self._expiring.labels(str(days)).set(count)

    def set_stored(self, connectors: int, receipts: int) -> None:
        """Take over how many connectors have ever been attached, and how many receipts of cuts are still waited for."""
        self._connectors.set(connectors)
        self._receipts.set(receipts)
