"""The resolvers that this machine asks: read from the files in which Linux systems keep them, and followed as they change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from klinket.client.capture.host.addresses import STUBS
from klinket.domain.address import parse_ip
from klinket.net import resolv_conf

#: Bytes of one file that are read, and resolvers of all files together.
MAX_FILE_BYTES = 65_536
MAX_SYSTEM_RESOLVERS = 64


class SystemResolvers:
    """`of_libc`: those of the first file, in order, which the C library asks; `captured`: those of all files, and the stubs."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._seen: tuple[object, ...] = ()
        self.of_libc: tuple[str, ...] = ()
        self.captured: frozenset[str] = frozenset()

    def look(self) -> bool:
        """Read the files again if one of them changed; returns whether the resolvers did."""
        seen = tuple(_stamp(path) for path in self._files)
        if seen == self._seen:
            return False
        self._seen = seen
        before = (self.of_libc, self.captured)
        lists = [_resolvers(path) for path in self._files]
        self.of_libc = lists[0] or (resolv_conf.DEFAULT_RESOLVER,)
        every = dict.fromkeys(one for found in (self.of_libc, *lists[1:]) for one in found)
        self.captured = frozenset([*list(every)[:MAX_SYSTEM_RESOLVERS], *STUBS])
        return (self.of_libc, self.captured) != before


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _resolvers(path: Path) -> tuple[str, ...]:
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_FILE_BYTES).decode(errors="replace")
    except OSError:
        return ()
    found = []
    for address in resolv_conf.parse(text).named:
        parsed = parse_ip(address)  # one with a scope (fe80::1%eth0) is the link's own: it is asked past klinket
        if parsed is not None and str(parsed) not in STUBS:
            found.append(str(parsed))
    return tuple(found)
