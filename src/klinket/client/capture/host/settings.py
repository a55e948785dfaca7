"""What is captured of a machine, and how."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from klinket.domain.errors import InvalidInput

#: Where Linux systems keep the resolvers they ask: the C library's file, and those of systemd-resolved, NetworkManager and
#: resolvconf behind it.
RESOLVER_FILES = (
    Path("/etc/resolv.conf"),
    Path("/run/systemd/resolve/resolv.conf"),
    Path("/run/NetworkManager/no-stub-resolv.conf"),
    Path("/run/NetworkManager/resolv.conf"),
    Path("/run/resolvconf/resolv.conf"),
)
#: Characters of a network. Python takes also what follows a `%` (RFC 4007), whatever it is.
PLAIN = re.compile(r"[0-9a-fA-F:./]+")
#: Every resource's connects are accepted at once.
ALL_FAST = "*"


@dataclass(frozen=True, slots=True)
class HostSettings:
    """`fast`: names, addresses or aliases of resources whose connects are accepted before the resource has answered.

    `sources`: other machines' networks that this one is the gateway of. `users`: user ids that are captured, none: all.
    `own_hosts`: canonical names that are never captured, those of the controller and the relays; asked at each look-up.
    """

    fast: frozenset[str] = frozenset()
    sources: tuple[str, ...] = ()
    users: tuple[int, ...] = ()
    own_hosts: Callable[[], Collection[str]] = tuple
    resolver_files: tuple[Path, ...] = RESOLVER_FILES

    def __post_init__(self) -> None:
        """Raise InvalidInput for what is no network or user id."""
        for source in self.sources:
            try:
                if not PLAIN.fullmatch(source):  # it goes into the text of rules
                    raise ValueError("only digits, letters a to f, colons, dots and one slash")
                ipaddress.ip_network(source)
            except ValueError as error:
                raise InvalidInput(
                    "gateway source", f"{source[:80]!r} is not a network: {error}", hint="as 192.0.2.0/24"
                ) from error
        for user in self.users:
            if not 0 <= user < 2**32:
                raise InvalidInput("user", f"{user} is not a user id")
