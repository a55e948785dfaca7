"""Open files of a captured command: none above 2 but those asked for, none with the key, none that leads past the capture.

Whoever starts klinket may have files open that its programs inherit: the key file among them, or a connected socket.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Sequence

from klinket.client.key_source import KeySource
from klinket.domain.errors import InvalidInput

#: Files that programs always have.
STANDARD = (0, 1, 2)


def with_the_key(source: KeySource) -> tuple[int, ...]:
    """Return those of 0 to 2 that the key can be read from. None of them is a directory: Python does not start then."""
    return tuple(number for number in STANDARD if source.is_in(number))


def check(wanted: Sequence[int], source: KeySource) -> None:
    """Raise InvalidInput unless each of these open files may be given to the command."""
    for number in wanted:
        try:
            mode = os.fstat(number).st_mode
        except OSError as error:
            raise InvalidInput("pass-fd", f"descriptor {number} is not open") from error
        if source.is_in(number):
            raise InvalidInput("pass-fd", f"descriptor {number} is the key file, which the command must not read")
        if stat.S_ISDIR(mode):
            raise InvalidInput("pass-fd", f"descriptor {number} is a directory: files that klinket hides could be read by it")
        if stat.S_ISSOCK(mode) and _is_of_the_network(number):
            raise InvalidInput("pass-fd", f"descriptor {number} is a network socket: it would lead past klinket")


def _is_of_the_network(number: int) -> bool:
    with socket.socket(fileno=os.dup(number)) as sock:
        return sock.family != getattr(socket, "AF_UNIX", None)


def keep_only(wanted: Iterable[int], emptied: Iterable[int] = ()) -> None:
    """Let exec close every file above 2 that is not wanted, and put /dev/null in the place of `emptied`.

    For a process between fork and exec. Close-on-exec, not close: whoever forked it may be waiting for its word on one of them.
    """
    kept = set(wanted)
    for number in _open_descriptors():
        if number not in STANDARD:
            try:
                os.set_inheritable(number, number in kept)
            except OSError:
                pass  # the one the list was read with
    for number in emptied:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, number)
        os.close(null)


def _open_descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - names only
    except OSError:
        return list(range(3, os.sysconf("SC_OPEN_MAX")))
