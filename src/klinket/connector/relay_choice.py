"""At which relays this connector waits, where there are more than it needs: the nearest, as measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping

from klinket.domain.nearest_relays import KEPT_RELAYS, NearestRelays
from klinket.net import sockets
from klinket.net.sockets import HostPort
from klinket.wire.inventory import RelayEntry

#: Seconds between measurements, and while a relay that was chosen does not answer.
MEASURE_SECONDS, AWAY_SECONDS = 60.0, 5.0
#: Seconds for one measurement, after which a relay counts as away.
CONNECT_SECONDS = 2.0


class RelayChoice:
    """Measures relays and chooses among them."""

    def __init__(self) -> None:
        self._nearest = NearestRelays()
        self.measured = False

    def best(self, relays: Mapping[int, RelayEntry]) -> dict[int, RelayEntry]:
        """Return the relays to wait at; of the rest nothing is asked but how near they are."""
        if len(relays) <= KEPT_RELAYS:
            return dict(relays)
        return {id: relays[id] for id in self._nearest.best(list(relays))}

    async def measure(self, relays: Collection[RelayEntry]) -> None:
        """Connect to each relay once."""
        self._nearest.keep(relay.id for relay in relays)
        await asyncio.gather(*(self._measure(relay) for relay in relays))
        self.measured = True

    async def _measure(self, relay: RelayEntry) -> None:
        begun = time.monotonic()
        try:
            (await sockets.connect(HostPort.parse(relay.address), CONNECT_SECONDS)).close()
        except OSError:
            self._nearest.measured(relay.id, None)
            return
        self._nearest.measured(relay.id, time.monotonic() - begun)
