"""The service behind klinket, in threads of this process: it knows how each of its ends of flows ended."""

from __future__ import annotations

import socket

from chaos.exchange import Outcome, as_service, outcome
from chaos.threads import Listening


class Service(Listening):
    """`outcomes`: by the number of the flow. `unnamed`: ends of connections that ended before they said their number."""

    def __init__(self, address: str) -> None:
        super().__init__(address, self._sum)
        self.outcomes: dict[int, Outcome] = {}
        self.unnamed: list[Outcome] = []
        self._live: set[int] = set()

    @property
    def live(self) -> int:
        """Return how many connections have not ended."""
        return len(self._live)

    def _sum(self, connection: socket.socket) -> None:
        self._live.add(connection.fileno())
        learnt: list[int] = []
        descriptor, found = connection.fileno(), None
        try:
            as_service(connection, learnt)
        except Exception as error:
            found = error
        ended = outcome(found)
        if learnt:
            self.outcomes[learnt[0]] = ended
        else:
            self.unnamed.append(ended)
        self._live.discard(descriptor)
        connection.close()
