"""A part's metrics as Prometheus text: read when somebody asks, counted by nobody meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from klinket.domain.errors import InvalidInput
from klinket.domain.readiness import Readiness
from klinket.wire.version import PRODUCT_VERSION

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric


class Exposition:
    """The metrics of one part. `read` gives those of its role, told for how many seconds it runs; process figures, version
    and readiness are added.

    Raises InvalidInput("metrics") where the library is not installed. `registry`: one that has the part's metrics already.
    """

    def __init__(
        self,
        role: str,
        read: Callable[[float], Iterable[Metric]] = lambda uptime: (),
        monotonic: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry | None = None,
    ) -> None:
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector
        except ImportError as error:
            hint = "pip install prometheus-client" if role == "client" else f"pip install 'klinket[{role}]'"
            raise InvalidInput("metrics", "metrics need prometheus-client, which is not installed", hint=hint) from error
        self._role = role
        self._read = read
        self._monotonic = monotonic
        self._began = monotonic()
        self._ready = Readiness()
        self._registry = CollectorRegistry() if registry is None else registry
        self._registry.register(self)  # a collector by its method
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of this moment, for the library."""
        yield gauge("klinket_build_info", "1, with role and version", {"role": self._role, "version": PRODUCT_VERSION}, 1)
        yield gauge("klinket_ready", "1 while the part is usable: what /ready says", {}, int(self._ready.is_ready))
        uptime = self._monotonic() - self._began
        yield gauge("klinket_uptime_seconds", "Seconds since the part began", {}, uptime)
        yield from self._read(uptime)

    def text(self, ready: Readiness) -> tuple[str, bytes]:
        """Return the content type and the text."""
        from prometheus_client import generate_latest
        from prometheus_client.exposition import CONTENT_TYPE_LATEST

        self._ready = ready
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)


def gauge(name: str, help: str, labels: Mapping[str, str], value: float) -> Metric:
    """Return a gauge with one value."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, help, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def counter(name: str, help: str, label_names: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a counter; `values` by the values of its labels, `()` where it has none. The name ends in _total."""
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, help, labels=list(label_names))
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    return family
