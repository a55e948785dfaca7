"""A child of fork() gets no session, link or socket of ours: it would seal under nonces that its parent uses (security.md 6)."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Holder(Protocol):
    """Has keys or sockets."""

    def forked(self) -> None:
        """Forget and close them, in the child; the parent's are the same open files and must go on: close, never reset."""


_HOLDERS: WeakSet[Holder] = WeakSet()


def watch(holder: Holder) -> None:
    """Call `forked` in every child, as long as the holder lives."""
    _HOLDERS.add(holder)


def _in_child() -> None:
    for holder in list(_HOLDERS):
        holder.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
