"""All that answers a namespace: its connects, datagrams, names and proxies."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from klinket.client.capture.answers import Answers
from klinket.client.capture.connects import HeldConnects
from klinket.client.capture.datagrams import CapturedDatagrams
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.echoes import CapturedEchoes
from klinket.client.capture.host_loopback import HOST_LOOPBACK, HOST_NAME
from klinket.client.capture.namespace import inside, rules
from klinket.client.capture.resolver import AnswerRules, NameStub
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.client.ports import FlowOpener

#: An address of the range that public ones are of (RFC 4291), to ask the kernel for a route.
_PUBLIC_IPV6 = ("2000::1", 53)


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
    """Begin to answer on the sockets of a namespace (inside.become), which are taken over; raises CaptureImpossible."""
    names = SyntheticAddresses()
    doorway = Doorway(client, names, told, host_loopback=host_loopback)
    own = {HOST_NAME: HOST_LOOPBACK} if host_loopback else {}
    families = ("", "6") if "listener6" in named else ("",)
    answers = AnswerRules(ipv6=len(families) > 1, hides_ipv6=not (len(families) > 1 and _has_ipv6_route()), own=own)
    parts: tuple[HeldConnects | CapturedDatagrams | CapturedEchoes | NameStub, ...] = (
        HeldConnects(named["queue"], [named[f"listener{one}"] for one in families], doorway),
        *(CapturedDatagrams(named[f"datagrams{one}"], _answers(named, one), doorway) for one in families),
        CapturedEchoes(named["echo_queue"], rules.ECHO_QUEUE, [named[f"echo_raw{one}"] for one in families], doorway),
        NameStub(named["dns"], named["dns_listener"], client, names, resolvers, answers),
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


def _answers(named: Mapping[str, socket.socket], family: str) -> Answers:
    own = rules.OWN_ADDRESS6 if family else rules.OWN_ADDRESS
    return Answers(named[f"raw{family}"], named.get(f"loopback{family}"), own)


def _has_ipv6_route() -> bool:
    """Return whether this machine has a way to the public IPv6 addresses of others; sends nothing."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.connect(_PUBLIC_IPV6)
    except OSError:
        return False
    return True
