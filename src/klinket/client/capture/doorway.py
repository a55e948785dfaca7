"""Where a captured destination leads: to a granted resource, or past klinket."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from klinket.client.capture import direct
from klinket.client.capture.host_loopback import HOST_LOOPBACK, HOST_NAME
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.client.ports import CarriedFlow, DatagramFlow, FlowOpener
from klinket.domain.address import parse_ip
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol

#: Seconds in which the same refusal is told once.
REPEAT_SECONDS = 5.0
#: Refusals remembered for that.
MAX_REMEMBERED = 256


class Doorway:
    """Turns addresses that programs dialled into flows. Refusals of granted resources are told with one line each.

    `only_klinkets`: nothing goes past klinket, since what is captured was granted, now or before. `host_loopback`:
    HOST_LOOPBACK leads to the loopback of the machine klinket runs on.
    """

    def __init__(
        self,
        client: FlowOpener,
        names: SyntheticAddresses,
        told: Callable[[str], None],
        *,
        only_klinkets: bool = False,
        host_loopback: bool = False,
    ) -> None:
        self._only_klinkets = only_klinkets
        self._host_loopback = host_loopback
        self._client = client
        self._names = names
        self._told = told
        self._lately: dict[tuple[Destination, FlowFailure], float] = {}

    def destination(self, address: str, port: int, protocol: TransportProtocol) -> Destination:
        """Return what an address means: the name a synthetic one stands for, or the address itself; raises FlowRefused."""
        name = self._names.name_of(address)
        if name is None and address in self._names:
            raise FlowRefused(FlowFailure.UNREACHABLE, f"{address} stands for no name")
        return Destination(name or address, port, protocol)

    def is_klinkets(self, destination: Destination) -> bool:
        """Return whether a flow goes through klinket: granted now or before, or a name klinket has answered for."""
        if self._is_host(destination):
            return False
        return self._only_klinkets or self._client.claims(destination.host) or self._names.knows(destination.host)

    def _is_host(self, destination: Destination) -> bool:
        return self._host_loopback and destination.host == HOST_LOOPBACK

    def outside(self, destination: Destination) -> Destination:
        """Return what this machine dials for a destination that is none of klinket's."""
        return replace(destination, host="127.0.0.1") if self._is_host(destination) else destination

    async def open_asked(self, destination: Destination) -> CarriedFlow:
        """Open what a program has asked a proxy for, by name or address; raises FlowRefused.

        Loopback would be this machine's own, and the program means its own, where no proxy is needed.
        """
        if self._host_loopback and destination.host == HOST_NAME and not self._client.claims(destination.host):
            destination = replace(destination, host=HOST_LOOPBACK)
        if parse_ip(destination.host) is not None:
            destination = self.destination(destination.host, destination.port, destination.protocol)
        return await self.open_stream(destination, loopback=False)

    async def open_stream(self, destination: Destination, *, loopback: bool = True) -> CarriedFlow:
        """Open a TCP flow; raises FlowRefused. What was granted, or klinket has named, never goes past it."""
        if self._is_host(destination):
            return await direct.dial(self.outside(destination))
        if not self.is_klinkets(destination):
            return await direct.connect(self._client, destination, loopback=loopback)
        try:
            return await self._client.open_stream(destination)
        except FlowRefused as refused:
            self.tell(destination, refused)
            raise

    async def open_early(self, destination: Destination) -> CarriedFlow:
        """Open a TCP flow of a connection that was accepted already, without waiting for the resource; raises FlowRefused."""
        if not self.is_klinkets(destination):
            return await self.open_stream(destination)
        try:
            return await self._client.open_early(destination, lambda refused: self.tell(destination, refused))
        except FlowRefused as refused:
            self.tell(destination, refused)
            raise

    async def open_datagrams(self, destination: Destination) -> DatagramFlow:
        """Open a UDP association, or an ICMP flow, with a granted resource; raises FlowRefused."""
        try:
            return await self._client.open_datagrams(destination)
        except FlowRefused as refused:
            self.tell(destination, refused)
            raise

    def tell(self, destination: Destination, refused: FlowRefused) -> None:
        """Say why a flow was refused, at most once in REPEAT_SECONDS."""
        now = time.monotonic()
        key = (destination, refused.failure)
        if self._lately.get(key, 0.0) > now:
            return
        if len(self._lately) >= MAX_REMEMBERED:
            self._lately.clear()
        self._lately[key] = now + REPEAT_SECONDS
        self._told(f"klinket: {destination.host_port}: {refused.failure.value}: {refused}")
