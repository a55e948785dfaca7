"""A daemon as who watches it sees it: metrics, and whether it is usable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from klinket.client.daemon.sessions import Sessions
from klinket.client.daemon.states import State, Verdict
from klinket.domain.readiness import Readiness, readiness
from klinket.net.exposition import counter, gauge

if TYPE_CHECKING:
    from prometheus_client.core import Metric


@dataclass(frozen=True)
class Observed:
    """The parts of a daemon that are looked at. `wall`: seconds since the epoch."""

    sessions: Sessions
    verdict: Callable[[], Verdict]
    wall: Callable[[], float] = time.time

    async def ready(self) -> Readiness:
        """Return whether resources can be used now."""
        verdict = self.verdict()
        return readiness((verdict.state is State.ONLINE, verdict.state.value, verdict.reason))

    def metrics(self, uptime: float) -> Iterable[Metric]:
        """Yield the metrics of this moment (docs/reference/metrics.md). `uptime`: seconds."""
        sessions, traffic = self.sessions, self.sessions.traffic
        client = sessions.current
        live = client is not None and not client.ended.is_set()
        attached = live and client is not None and client.channel_trouble is None
        yield gauge("klinket_client_attached", "1 with a live channel to the controller", {}, int(attached))
        count = int(live) + sessions.retiring_count
        yield gauge("klinket_client_sessions", "Sessions, those among them that a newer key has replaced", {}, count)
        links = 0 if client is None else client.link_count
        yield gauge("klinket_client_links", "Connectors with a link", {}, links)
        yield gauge("klinket_client_resources", "Resources granted", {}, len(sessions.resources))
        yield gauge("klinket_client_flows", "Live flows", {}, sessions.flow_count)
        key = sessions.key_file
        if key is not None and key.expires_at is not None:
            left = datetime.fromisoformat(key.expires_at).timestamp() - self.wall()
            yield gauge("klinket_client_key_expires_in_seconds", "Until the key expires; below 0: it has", {}, left)
        yield counter("klinket_client_logins_total", "Logins that gave a session", (), {(): traffic.logins})
        losses: dict[tuple[str, ...], float] = {(): traffic.channel_losses}
        yield counter("klinket_client_channel_losses_total", "Times the channel was lost or could not be had", (), losses)
        yield counter("klinket_client_flows_opened_total", "Flows that were opened", (), {(): traffic.opened})
        refused: dict[tuple[str, ...], float] = {(one.value,): number for one, number in traffic.refused.items()}
        yield counter("klinket_client_flows_refused_total", "Flows that were refused, by reason", ("reason",), refused)
        moved: dict[tuple[str, ...], float] = {("sent",): traffic.bytes_sent, ("received",): traffic.bytes_received}
        yield counter("klinket_client_bytes_total", "Content of TCP flows that have ended", ("direction",), moved)
