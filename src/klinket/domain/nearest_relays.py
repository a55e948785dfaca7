"""Which relays are kept of those there are: the nearest by measured latency, with hysteresis, without sockets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: Relays that a client uses for a link, and at which a connector waits.
KEPT_RELAYS = 2
#: Share of a new measurement in what is known of a relay.
NEW_SHARE = 0.3
#: A relay takes a kept one's place where it is nearer by this share of the time, and by these seconds.
NEARER_SHARE, NEARER_SECONDS = 0.25, 0.005


class NearestRelays:
    """Seconds per relay, smoothed, and which are kept."""

    def __init__(self, count: int = KEPT_RELAYS) -> None:
        self._count = count
        self._seconds: dict[int, float] = {}
        self._away: set[int] = set()
        self._kept: list[int] = []

    def measured(self, relay: int, seconds: float | None) -> None:
        """Note a measurement; None: the relay does not answer."""
        if seconds is None:
            self._away.add(relay)
            return
        self._away.discard(relay)
        known = self._seconds.get(relay)
        self._seconds[relay] = seconds if known is None else known + (seconds - known) * NEW_SHARE

    def keep(self, relays: Iterable[int]) -> None:
        """Forget relays that are not among these."""
        present = set(relays)
        self._seconds = {id: seconds for id, seconds in self._seconds.items() if id in present}
        self._away &= present
        self._kept = [id for id in self._kept if id in present]

    def best(self, candidates: Sequence[int]) -> list[int]:
        """Return the relays to use of `candidates` (in order of preference where nothing is measured), the nearest first.

        Those that were returned before stay, until they do not answer or another one is clearly nearer.
        """
        place = {id: number for number, id in enumerate(candidates)}
        answering = [id for id in candidates if id not in self._away] or list(candidates)

        def seconds(id: int) -> float:
            known = self._seconds.get(id)
            if known is None:
                return float("inf")
            return known * (1 - NEARER_SHARE) - NEARER_SECONDS if id in self._kept else known

        chosen = sorted(answering, key=lambda id: (seconds(id), id not in self._kept, place[id]))[: self._count]
        others = [id for id in self._kept if id not in place]  # of other connectors: they keep theirs
        self._kept = chosen + others
        return chosen
