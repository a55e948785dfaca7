"""All that answers a namespace: its connects, datagrams, names and proxies."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from klinket.client.capture.connects import HeldConnects
from klinket.client.capture.datagrams import CapturedDatagrams
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.host_loopback import HOST_LOOPBACK, HOST_NAME
from klinket.client.capture.namespace import inside
from klinket.client.capture.resolver import NameStub
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.client.ports import FlowOpener


class Serving(Protocol):
    """A part that answers until it is closed."""

    async def aclose(self) -> None: ...


def serve(
    named: Mapping[str, socket.socket],
    client: FlowOpener,
    resolvers: Sequence[str],
    told: Callable[[str], None],
    *,
    host_loopback: bool,
) -> Sequence[Serving]:
    """Begin to answer on the sockets of a namespace (inside.sockets_of), which are taken over; raises CaptureImpossible."""
    names = SyntheticAddresses()
    doorway = Doorway(client, names, told, host_loopback=host_loopback)
    own = {HOST_NAME: HOST_LOOPBACK} if host_loopback else {}
    parts = (
        HeldConnects(named["queue"], [named["listener"]], doorway),
        CapturedDatagrams(named["datagrams"], named["raw"], doorway),
        NameStub(named["dns"], named["dns_listener"], client, names, resolvers, own),
    )
    for part in parts:
        part.start()
    if inside.HTTP_PROXY not in named:
        return parts
    from klinket.client.capture.proxy import Proxy, speak_http, speak_socks

    proxies = []
    for name, speak in ((inside.HTTP_PROXY, speak_http), (inside.SOCKS_PROXY, speak_socks)):
        proxy = Proxy(client, speak, opening=doorway.open_asked)
        proxy.serve(named[name])
        proxies.append(proxy)
    return (*parts, *proxies)
