"""Which connector a flow goes to, without sockets: spread by rendezvous hashing, weighted by load and by what was seen of each.

Nothing is asked for this: connectors that failed, or did not reach a resource that another one reached, come last for a while.
After it one flow tries them again; the others stay away until that one has ended.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from klinket.domain.identifiers import ResourceId

#: Seconds for which a connector that failed is tried last; each further time twice as long, up to the second number.
FAILED_SECONDS, MOST_FAILED_SECONDS = 10.0, 60.0
#: The same for a connector and a resource that another connector has reached, and it has not.
UNREACHED_SECONDS, MOST_UNREACHED_SECONDS = 15.0, 600.0
#: Seconds for which one flow tries such a connector again while the others stay away.
TRIAL_SECONDS = 15.0
#: Connectors and resources remembered as unreached; the oldest are forgotten first.
MAX_UNREACHED = 10_000
#: Share of the flows by load, in percent of a processor: up to the first number the second one.
WEIGHTS = ((50, 1.0), (70, 0.7), (85, 0.4), (100, 0.2))


@dataclass(slots=True)
class _Mark:
    """`due`: when it is tried again; `kept`: until when all but one flow stay away even so."""

    due: float
    seconds: float
    kept: float = 0.0

    def holds(self, now: float) -> bool:
        return now < max(self.due, self.kept)

    def try_again(self, now: float) -> None:
        if self.due <= now:
            self.kept = now + TRIAL_SECONDS

    def again(self, now: float, most: float) -> None:
        if self.due <= now:
            self.seconds = min(most, self.seconds * 2)
            self.due, self.kept = now + self.seconds, 0.0


class ConnectorChoice:
    """`now`: seconds on any clock that only goes forward, or the controller's."""

    def __init__(self) -> None:
        self._failed: dict[int, _Mark] = {}
        self._unreached: OrderedDict[tuple[int, ResourceId, str], _Mark] = OrderedDict()
        self._loads: dict[int, int] = {}

    def order(self, session: str, resource: ResourceId, host: str, connectors: Iterable[int], now: float) -> list[int]:
        """Return the connectors of a resource's remote network, the one to ask first in front.

        Where one comes or goes, or its load changes, only the flows move that it gets or loses.
        """

        def rank(id: int) -> tuple[bool, bool, float]:
            return self.is_failing(id, now), self._misses(id, resource, host, now), -score(session, resource, id, self.weight(id))

        known = list(connectors)
        return sorted(known, key=rank) if len(known) > 1 else known

    def is_failing(self, connector: int, now: float) -> bool:
        """Return whether a connector failed lately."""
        return (mark := self._failed.get(connector)) is not None and mark.holds(now)

    def _misses(self, connector: int, resource: ResourceId, host: str, now: float) -> bool:
        """Return whether a connector has not reached a host: what is known of that very host counts, else of the resource."""
        mark = self._unreached.get((connector, resource, host)) or self._unreached.get((connector, resource, ""))
        return mark is not None and mark.holds(now)

    def weight(self, connector: int) -> float:
        """Return the share of the flows a connector gets, compared to one without load."""
        load = self._loads.get(connector, 0)
        return next((weight for most, weight in WEIGHTS if load <= most), WEIGHTS[-1][1])

    # ---- what was seen

    def reports(self, connector: int, load: int) -> None:
        """Note a connector's own word, in percent of a processor: at the most it gets its equal share by it."""
        self._loads[connector] = max(0, min(100, load))

    def tries(self, connector: int, resource: ResourceId, host: str, now: float) -> None:
        """Note that a flow goes to a connector: where it is one that is tried again, others wait for how it goes."""
        if (mark := self._failed.get(connector)) is not None:
            mark.try_again(now)
        for key in ((connector, resource, host), (connector, resource, "")):
            if (mark := self._unreached.get(key)) is not None:
                mark.try_again(now)

    def failed(self, connector: int, now: float) -> None:
        """Try this connector last for a while: it is not there."""
        mark = self._failed.get(connector)
        if mark is None:
            self._failed[connector] = _Mark(now + FAILED_SECONDS, FAILED_SECONDS)
        else:
            mark.again(now, MOST_FAILED_SECONDS)

    def works(self, connector: int) -> None:
        """Forget that this connector has failed."""
        self._failed.pop(connector, None)

    def reached(self, connector: int, resource: ResourceId, host: str) -> None:
        """Forget that this connector has not reached a resource."""
        if self._unreached:
            self._unreached.pop((connector, resource, host), None)
            self._unreached.pop((connector, resource, ""), None)

    def unreached(self, connector: int, resource: ResourceId, host: str, now: float) -> None:
        """Choose this connector for this resource last for a while: another has just reached it."""
        self._miss(((connector, resource, host), (connector, resource, "")), now)

    def missed(self, connector: int, resource: ResourceId, host: str, now: float) -> None:
        """Choose this connector for this very host last for a while: whether another reaches it is not known yet."""
        self._miss(((connector, resource, host),), now)

    def _miss(self, keys: Iterable[tuple[int, ResourceId, str]], now: float) -> None:
        for key in keys:
            mark = self._unreached.get(key)
            if mark is None:
                self._unreached[key] = _Mark(now + UNREACHED_SECONDS, UNREACHED_SECONDS)
            else:
                mark.again(now, MOST_UNREACHED_SECONDS)
                self._unreached.move_to_end(key)
        while len(self._unreached) > MAX_UNREACHED:
            self._unreached.popitem(last=False)

    def keep(self, connectors: Iterable[int]) -> None:
        """Forget connectors that are not among these."""
        known = set(connectors)
        self._failed = {id: mark for id, mark in self._failed.items() if id in known}
        self._loads = {id: load for id, load in self._loads.items() if id in known}


def score(session: str, resource: ResourceId, connector: int, weight: float) -> float:
    """Return a connector's score in weighted rendezvous hashing: the highest is chosen (Schindelhauer, Schomaker 2005)."""
    digest = hashlib.sha256(f"{session} {resource} {connector}".encode()).digest()
    # 52 bits and a half: a float between 0 and 1 that is neither.
    uniform = ((int.from_bytes(digest[:8]) >> 12) + 0.5) / 2**52
    return -weight / math.log(uniform)
