"""The pipes of clients that have proved who they are: in fair shares, within time limits, and ended with their session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from klinket.connector import limits
from klinket.connector.core import LinkRecord
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import FlowFailure
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ServiceAccountUuid, SessionId
from klinket.domain.shares import FairShares
from klinket.net.pipe import SealedPipe


@dataclass(slots=True)
class _Held:
    record: LinkRecord
    rests: bool


class ProvenPipes:
    """`capacity`: pipes at a time, of all clients."""

    def __init__(self, capacity: int) -> None:
        self._shares: FairShares[ServiceAccountUuid] = FairShares(capacity)
        self._of_session: Counter[SessionId] = Counter()
        self._resting: Counter[SessionId] = Counter()
        self._held: dict[SealedPipe, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def enter(self, pipe: SealedPipe, record: LinkRecord) -> None:
        """Count a pipe whose first frame has proved its link; raises FlowRefused when its holder has its share."""
        session, account = record.principal.session, record.principal.account
        if self._of_session[session] >= limits.MAX_PIPES_PER_SESSION:
            raise FlowRefused(FlowFailure.THROTTLED, f"the session has {limits.MAX_PIPES_PER_SESSION} pipes, the limit")
        if not self._shares.take(account):
            raise FlowRefused(FlowFailure.THROTTLED, "the service account has its share of this connector's pipes", retry_after=1)
        self._of_session[session] += 1
        self._held[pipe] = _Held(record, rests=False)

    def leave(self, pipe: SealedPipe) -> None:
        """Forget a pipe; one that is not counted does not matter."""
        held = self._held.get(pipe)
        if held is None:
            return
        self.works(pipe)
        del self._held[pipe]
        self._shares.give_back(held.record.principal.account)
        _less(self._of_session, held.record.principal.session)

    def rests(self, pipe: SealedPipe) -> bool:
        """Note that a pipe waits for its next flow; False when its session has enough of those, and this one is to end."""
        held = self._held.get(pipe)
        if held is None:
            return True
        session = held.record.principal.session
        if self._resting[session] >= limits.MAX_RESTING_PIPES_PER_SESSION:
            return False
        if not held.rests:
            held.rests = True
            self._resting[session] += 1
        return True

    def works(self, pipe: SealedPipe) -> None:
        """Note that a pipe carries a flow, or something else."""
        held = self._held.get(pipe)
        if held is not None and held.rests:
            held.rests = False
            _less(self._resting, held.record.principal.session)

    def end_resting(self, holds: Callable[[Principal], bool]) -> None:
        """Reset the pipes at rest of these principals; those with a flow end with it."""
        for pipe, held in list(self._held.items()):
            if held.rests and holds(held.record.principal):
                pipe.abort()


def _less(counter: Counter[SessionId], session: SessionId) -> None:
    counter[session] -= 1
    if not counter[session]:
        del counter[session]
