"""Forks the child that becomes the command, before there are threads, an event loop, or the key."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from klinket.client.capture.namespace import inside, rules
from klinket.net import resolv_conf

_RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Forked:
    """A child that sets itself up. `channel`: to it; `resolvers`: this machine's."""

    pid: int
    channel: socket.socket
    resolvers: Sequence[str]


def fork(
    arguments: Sequence[str],
    hidden: Sequence[Path],
    pass_descriptors: Sequence[int] = (),
    emptied: Sequence[int] = (),
    *,
    env_proxy: bool = False,
) -> Forked:
    """Start the child; it sets itself up while this process logs in.

    `pass_descriptors`: files above 2 that the command gets; `emptied`: standard ones that hold the key; `env_proxy`: the child
    also makes listeners for proxies and names them in its environment.
    """
    try:
        found = resolv_conf.parse(_RESOLV_CONF.read_text(errors="replace"))
    except OSError:
        found = resolv_conf.parse("")
    own_file = found.with_resolver(rules.DNS_ADDRESS)
    command = inside.Command(arguments, hidden, own_file, pass_descriptors, emptied, env_proxy)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        inside.become(command, theirs, parent)
    theirs.close()
    ours.setblocking(False)
    return Forked(pid, ours, found.resolvers)
