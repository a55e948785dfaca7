"""System calls that Python 3.11 has no function for. Each raises OSError."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000

_CAP_NET_RAW = 13
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def unshare(flags: int) -> None:
    """Move this process into new namespaces (unshare(2))."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, flags: int) -> None:
    """Mount without a file system type (mount(2)): bind mounts and changes of propagation."""
    _check(_libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None), target)


def _prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    return int(_libc.prctl(ctypes.c_int(option), *padded))


def die_with_parent(signal: int) -> None:
    """Have this signal sent when the parent dies; kept over execve of an ordinary program."""
    _check(_prctl(_PR_SET_PDEATHSIG, signal), "PR_SET_PDEATHSIG")


def give_up_capabilities() -> None:
    """Leave this process, and what it executes, without any capability, even as user 0 of its namespace.

    CAP_NET_RAW stays in the bounding set: Linux executes no file with a capability outside of it, and ping often has this one.
    Nothing gains it: there are no new privileges, and it would be one over this user namespace's own networks, which has none.
    """
    capability = 0
    while _prctl(_PR_CAPBSET_READ, capability) >= 0:
        if capability != _CAP_NET_RAW:
            _check(_prctl(_PR_CAPBSET_DROP, capability), "PR_CAPBSET_DROP")
        capability += 1
    _check(_prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL), "PR_CAP_AMBIENT")
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "PR_SET_NO_NEW_PRIVS")
