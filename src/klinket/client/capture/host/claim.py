"""One klinket per network namespace: whoever has the link of FALLBACK's routes, a TUN interface that nobody reads.

The kernel attaches a second process to it only with CAP_NET_ADMIN, and never while the first has it: no other user can take the
claim away or keep it. It frees the link when the last descriptor is closed, however its process ends.
"""

from __future__ import annotations

import errno
import os
import re
import time
from pathlib import Path

from klinket.client.capture.host import tools, watcher
from klinket.client.capture.host.routes import LINK
from klinket.domain.errors import CaptureImpossible

#: Seconds to wait for the watcher of one that died just now.
WAIT_SECONDS = 5.0
_STEP_SECONDS = 0.02


def take(wait: float = WAIT_SECONDS) -> int:
    """Return the descriptor of the claim; closing it frees it. Blocks for up to `wait`.

    Raises CaptureImpossible when another process has it, or this one may make no link.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            return watcher.take(LINK)
        except OSError as error:
            if error.filename is not None:
                raise CaptureImpossible(
                    f"{error.filename}: {error.strerror}",
                    hint="load the kernel's module with `modprobe tun`; give a container --device /dev/net/tun",
                ) from error
            if error.errno != errno.EBUSY:
                raise CaptureImpossible(
                    f"the interface {LINK}: {error.strerror}", hint="run as root, or with CAP_NET_ADMIN (--cap-add NET_ADMIN)"
                ) from error
        if time.monotonic() >= deadline:
            raise CaptureImpossible(
                f"another klinket captures this machine already: process {_holder() or 'of another container'}",
                hint="stop it first, or use that one: two would take each other's connections",
            )
        time.sleep(_STEP_SECONDS)


def signed() -> str:
    """Return the line for `ip -batch` that writes on the link who has it, for `_holder`; only its holder may write there."""
    return f"link set {LINK} alias klinket-{os.getpid()}-{_process_namespace()}\n"


def _holder() -> int:
    """Return the process that has the link, or 0 where it has another pid namespace, or does not say."""
    try:
        found = re.search(r"\balias klinket-([0-9]{1,10})-([0-9]{1,20})\b", tools.run(("ip", "link", "show", "dev", LINK)))
    except CaptureImpossible:
        return 0
    return int(found[1]) if found is not None and int(found[2]) == _process_namespace() else 0


def _process_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino
