"""What capture methods (proxy, namespace, forward) and the SDK ask of a running client."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from klinket.domain.errors import FlowRefused
    from klinket.domain.flow import Destination
    from klinket.domain.resource import Resource
    from klinket.net.segments import Taker
    from klinket.wire.link_control import NameAnswer


class CarriedFlow(Protocol):
    """A flow whose resource has accepted."""

    async def carry(self, local: socket.socket, early: bytes = b"") -> None:
        """Move bytes between `local` (taken over and closed) and the resource until both ends are done.

        `early`: what the program has sent already. A cut, a reset and an end without FIN close `local` with RST; never as a
        clean end of stream.
        """

    async def begin(self, local: socket.socket, early: bytes, over: Callable[[CarriedFlow], None]) -> None:
        """As carry(), but return as soon as bytes are moved: nobody waits, which takes less memory. `over`: called at the end.

        Where this raises, or is cancelled, `over` is not called, and all is closed.
        """

    def abort(self) -> None:
        """Give the flow up, before it is carried or meanwhile: the resource sees a reset, and so does `local`."""


class OpenedFlow(CarriedFlow, Protocol):
    """A flow to a resource: OPENED was received."""

    @property
    def resource(self) -> Resource: ...


class DatagramFlow(Protocol):
    """A UDP association, or an ICMP flow, with one destination. What it carries of ICMP is wire.echo's."""

    @property
    def resource(self) -> Resource: ...

    def start(self, deliver: Taker, ended: Callable[[FlowRefused], None]) -> None:
        """Hand datagrams to `deliver` from now on, several at once where they came together, and the end, once, to `ended`."""

    def put(self, datagram: bytes) -> None:
        """Send one datagram, without waiting; raises FlowRefused when the association is over."""

    def put_all(self, datagrams: Sequence[bytes | memoryview]) -> None:
        """Send several, as put(); they may be gone when this returns."""

    async def send(self, datagram: bytes) -> None: ...

    async def receive(self) -> bytes:
        """Return the next datagram, where start() was not called; raises FlowRefused when the association is over."""

    def close(self) -> None: ...


class NameSource(Protocol):
    """What a client says of the names of its resources. Names are canonical; every refusal is FlowRefused."""

    def is_served(self, name: str) -> bool:
        """Return whether a connector of the name's resource has a live link now."""

    async def until_served(self, name: str) -> None:
        """Return, after a bounded wait, when nothing says that the name's resource is out of reach; else raise FlowRefused."""

    async def records(self, name: str, record_type: int) -> NameAnswer:
        """Return the records that the connector's resolvers know, of any type but addresses."""


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

    async def open_early(self, destination: Destination, refused: Callable[[FlowRefused], None]) -> OpenedFlow:
        """Open a TCP flow without waiting for the resource's answer; raises FlowRefused where nobody can be asked.

        carry() sends what the program does at once, behind OPEN. If the answer is a refusal, `refused` is told of it and `local`
        is reset, as it is where the connection to the connector breaks: nothing that was sent is sent again.
        """

    async def open_datagrams(self, destination: Destination) -> DatagramFlow: ...

    @property
    def names(self) -> NameSource | None:
        """Return what is known of names; None: every granted name has an address, and nothing else."""
