"""Where a part listens, and how many files it may open."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator

from klinket.doctor.finding import Finding, fail, ok, warn
from klinket.net.sockets import HostPort

#: Seconds for a connection on this machine.
LOCAL_SECONDS = 2.0
#: Open files below which a part serves few connections: a relay takes up to three for each.
WARN_FILES = {"controller": 4_096, "connector": 4_096, "relay": 16_384, "client": 1_024}


def listening(address: HostPort) -> Finding:
    """Return `listen`: whether the address is free, or somebody listens there already."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.host, address.port))
            sock.listen(1)
    except OSError as error:
        return _not_free(address, error)
    return ok("listen", f"{address} is free: nothing listens there now")


def _not_free(address: HostPort, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - a comparison
        try:
            socket.create_connection((host, address.port), LOCAL_SECONDS).close()
        except OSError:
            return fail("listen", f"{address} is taken, and does not answer", "ss -ltnp shows by whom")
        return ok("listen", f"something listens on {address}: the part itself, if it runs (else ss -ltnp shows what)")
    if error.errno == errno.EACCES:
        return fail("listen", f"{address}: not allowed", "a port from 1024 on, or CAP_NET_BIND_SERVICE")
    if error.errno == errno.EADDRNOTAVAIL:
        return fail("listen", f"{address} is no address of this machine", "ip address; 0.0.0.0 is all of them")
    return fail("listen", f"{address}: {os.strerror(error.errno) if error.errno else error}", "HOST:PORT of this machine")


def open_files(role: str) -> Iterator[Finding]:
    """Yield `files`: how many a part of this user may open."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < WARN_FILES[role]:
        yield warn("files", f"{hard} files may be open at a time", f"raise it to {WARN_FILES[role]}: LimitNOFILE, or ulimit -n")
    else:
        yield ok("files", f"{'any number of' if hard == resource.RLIM_INFINITY else hard} files may be open at a time")
