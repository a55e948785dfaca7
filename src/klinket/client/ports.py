"""What capture methods (proxy, namespace, forward) and the SDK ask of a running client."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from klinket.domain.errors import FlowRefused
    from klinket.domain.flow import Destination
    from klinket.domain.resource import Resource


class CarriedFlow(Protocol):
    """A flow whose resource has accepted."""

    async def carry(self, local: socket.socket, early: bytes = b"") -> None:
        """Move bytes between `local` (taken over and closed) and the resource until both ends are done.

        `early`: what the program has sent already. A cut, a reset and an end without FIN close `local` with RST; never as a
        clean end of stream.
        """

    def abort(self) -> None:
        """Give the flow up before carry(): the resource sees a reset."""


class OpenedFlow(CarriedFlow, Protocol):
    """A flow to a resource: OPENED was received."""

    @property
    def resource(self) -> Resource: ...


class DatagramFlow(Protocol):
    """A UDP association with one destination."""

    @property
    def resource(self) -> Resource: ...

    def start(self, deliver: Callable[[bytes], None], ended: Callable[[FlowRefused], None]) -> None:
        """Hand each datagram to `deliver` from now on, and the end, once, to `ended`."""

    def put(self, datagram: bytes) -> None:
        """Send one datagram, without waiting; raises FlowRefused when the association is over."""

    async def send(self, datagram: bytes) -> None: ...

    async def receive(self) -> bytes:
        """Return the next datagram, where start() was not called; raises FlowRefused when the association is over."""

    def close(self) -> None: ...


class FlowOpener(Protocol):
    """The part of a client that opens flows. Every refusal is FlowRefused with a FlowFailure."""

    def resource_for(self, host: str) -> Resource | None:
        """Return the granted resource that serves this canonical name or address, or None: not klinket's business.

        Raises FlowRefused while that is not known yet.
        """

    def claims(self, host: str) -> bool:
        """Return whether a canonical host is klinket's business: granted now, or granted before. Nothing else dials it.

        Raises FlowRefused while that is not known yet.
        """

    async def open_stream(self, destination: Destination) -> OpenedFlow:
        """Open a TCP flow; returns when the resource has accepted, raises FlowRefused with the resource's answer."""

    async def open_datagrams(self, destination: Destination) -> DatagramFlow: ...
