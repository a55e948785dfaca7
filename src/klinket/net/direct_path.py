"""The path to a connector that listens itself: a TCP connection, on which the same follows as behind a relay."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence

from klinket.domain.errors import KlinketError
from klinket.net import sockets
from klinket.net.sockets import HostPort

#: Seconds to connect to all addresses together: whoever can be reached directly answers soon.
CONNECT_SECONDS = 3.0
#: Seconds after which a connector that was not met at its addresses is tried there again: the first time, and at the most.
AGAIN_SECONDS, MOST_AGAIN_SECONDS = 15.0, 300.0


class DirectUnavailable(KlinketError):
    """Nobody answers at the addresses a connector listens at, or somebody else does."""

    code = "direct-unavailable"


class DirectPath:
    """A connector's own addresses. `monotonic`: seconds on a clock that does not go back."""

    def __init__(self, addresses: Sequence[str], monotonic: Callable[[], float] = time.monotonic) -> None:
        self.addresses = tuple(addresses)
        self._hosts = [HostPort.parse(address) for address in addresses]
        self._monotonic = monotonic
        self._failures = 0
        self._again_at = 0.0

    @property
    def worth_trying(self) -> bool:
        """Return whether there are addresses, and the connector was not missed there just now."""
        return bool(self._hosts) and self._monotonic() >= self._again_at

    @property
    def avoided(self) -> bool:
        """Return whether another path is to be tried first."""
        return False

    def avoid(self) -> None:
        """Note that another path has led there sooner: `failed` says so where it counts."""

    async def connect(self, connector: int) -> socket.socket:
        """Return a connection with whoever is at the first address that answers; who it is, the handshake of the link tells.

        Raises DirectUnavailable.
        """
        failure: OSError | None = None
        for address in self._hosts:
            try:
                return await sockets.connect(address, CONNECT_SECONDS / len(self._hosts))
            except OSError as error:
                failure = error
        raise DirectUnavailable(f"connector {connector} is not met at {', '.join(self.addresses)}: {failure!s:.120}")

    def failed(self) -> None:
        """Note that the connector was not met: relays are used for a while, each time for longer."""
        self._again_at = self._monotonic() + min(MOST_AGAIN_SECONDS, AGAIN_SECONDS * 2.0**self._failures)
        self._failures = min(self._failures + 1, 10)

    def met(self) -> None:
        """Note that the connector has proved itself there."""
        self._failures, self._again_at = 0, 0.0
