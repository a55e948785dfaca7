"""The service behind klinket, in threads of this process: it knows how each of its ends of flows ended."""

from __future__ import annotations

import socket
import threading

from chaos.exchange import Outcome, as_service, outcome


class Service:
    """`outcomes`: by the number of the flow. `unnamed`: ends of connections that ended before they said their number."""

    def __init__(self, address: str) -> None:
        self._listener = socket.create_server((address, 0), backlog=1024)
        self.port = int(self._listener.getsockname()[1])
        self.outcomes: dict[int, Outcome] = {}
        self.unnamed: list[Outcome] = []
        self._live: set[int] = set()

    def __enter__(self) -> Service:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def live(self) -> int:
        """Return how many connections have not ended."""
        return len(self._live)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._live.add(connection.fileno())
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
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
