"""Where connectors say they listen: what of it clients are told."""

from __future__ import annotations

import re
from collections.abc import Sequence

from klinket.domain.address import parse_ip
from klinket.domain.errors import InvalidInput
from klinket.net.sockets import HostPort

#: Addresses of one connector that clients are told.
MAX_ADDRESSES = 8
MAX_HOST_CHARS = 253
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\.?")


def offered(told: Sequence[str], channel_from: str) -> tuple[str, ...]:
    """Return the addresses clients may try: no loopback (unless the connector itself is on this machine), no multicast or such.

    Whoever is there has to prove to be the connector; but clients shall not knock where no connector can be.
    """
    near = parse_ip(channel_from)
    local = near is not None and near.is_loopback
    kept = []
    for text in told[:MAX_ADDRESSES]:
        try:
            address = HostPort.parse(text[: MAX_HOST_CHARS + 8])
        except InvalidInput:
            continue
        ip = parse_ip(address.host)
        if ip is None:
            good = len(address.host) <= MAX_HOST_CHARS and _NAME.fullmatch(address.host) is not None
            # Other spellings of addresses ("127.1", "0x7f.1") end in a number, which no name of the DNS does.
            last = address.host.rstrip(".").rpartition(".")[2].lower()
            good = good and not last[:1].isdigit() and "localhost" not in address.host.lower()
        else:
            good = not (ip.is_unspecified or ip.is_multicast or ip.is_link_local or ip.is_reserved)
            good = good and (local or not ip.is_loopback)
        if good and address.port:
            kept.append(str(address))
    return tuple(dict.fromkeys(kept))
