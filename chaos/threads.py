"""Work in threads of this process: until it is told to end, or for each connection that comes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Self


class Threads:
    """A thread for each of `works` from entering to leaving, when `_over` is set; they have `patience` seconds each to end."""

    def __init__(self, works: Sequence[Callable[[], None]], patience: float = 60.0) -> None:
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        self._patience = patience

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(self._patience)


class Listening:
    """A listener from entering to leaving; each connection is served by a thread of its own. `accepted`: how many came."""

    def __init__(self, address: str, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self.accepted = 0
        self._listener = socket.create_server((address, 0), backlog=1024)
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # or the thread would go on waiting
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
