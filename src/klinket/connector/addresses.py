"""This machine's own addresses: reported to admins, and never dialled for a name."""

from __future__ import annotations

import asyncio
import socket
import subprocess

from klinket.domain.address import parse_ip

#: Seconds between looks at this machine's own addresses, which names must not lead to.
OWN_ADDRESSES_SECONDS = 30.0


async def follow(own: set[str]) -> None:
    """Keep a set of this machine's addresses as they are, for ever."""
    while True:
        await asyncio.sleep(OWN_ADDRESSES_SECONDS)
        if found := await asyncio.to_thread(own_addresses):  # none: they could not be found just now
            own.intersection_update(found)
            own.update(found)


def own_addresses() -> list[str]:
    """Return the addresses of this machine's interfaces, loopback left out; empty where they cannot be found."""
    found: set[str] = set()
    try:
        listed = subprocess.run(
            ["ip", "-oneline", "address", "show", "up"], capture_output=True, text=True, timeout=5, check=True
        ).stdout
        found.update(line.split()[3].partition("/")[0] for line in listed.splitlines())
    except (OSError, subprocess.SubprocessError, IndexError):
        try:
            found.update(str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None))
        except OSError:
            return []
    addresses = (parse_ip(text.partition("%")[0]) for text in found)
    return sorted(str(address) for address in addresses if address is not None and not address.is_loopback)
