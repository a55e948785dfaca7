"""A child of fork() has no pipe: neither its socket nor its keys. The parent's goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from klinket.net import pipe as pipes
from klinket.net.pipe import SealedPipe
from klinket.net.pipe_receiver import Frame
from klinket.wire.pipe import FrameType, Purpose
from tests.unit.net.conftest import tcp_pair
from tests.unit.net.test_net_pipe_receiver import keys

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


async def pair() -> tuple[SealedPipe, SealedPipe]:
    one, two = tcp_pair()
    ours, theirs = keys()
    one.setblocking(False)
    two.setblocking(False)
    return SealedPipe(one, ours, Purpose.FLOW), SealedPipe(two, theirs, Purpose.FLOW)


def in_child(what: Callable[[], bool]) -> bool:
    """Return what a child of fork() finds."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            os._exit(0 if what() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def seals(pipe: SealedPipe) -> bool:
    try:
        pipe.sealer.seal(FrameType.DATA, b"twice under one nonce")
    except ConnectionResetError:
        return False
    return True


async def test_a_child_has_neither_socket_nor_keys_and_the_parent_goes_on() -> None:
    one, two = await pair()
    await one.send(FrameType.DATA, b"before")
    descriptor = one.sock.fileno()

    def nothing_left() -> bool:
        try:
            os.fstat(descriptor)
        except OSError:
            return one.closed and not seals(one) and not one.send_now(FrameType.DATA, b"") and not seals(two)
        return False

    assert in_child(nothing_left)
    await one.send(FrameType.DATA, b"after")
    assert await two.receive() == Frame(FrameType.DATA, b"before")
    assert await two.receive() == Frame(FrameType.DATA, b"after")
    await two.send(FrameType.FIN)
    assert await one.receive() == Frame(FrameType.FIN, b"")
    one.abort()
    two.abort()


async def test_without_keys_nothing_is_sealed_and_nothing_opened() -> None:
    one, two = await pair()
    await two.send(FrameType.DATA, b"on its way")
    pipes.forget_all_keys()
    assert not seals(one)
    with pytest.raises(ConnectionResetError):
        await one.send(FrameType.DATA, b"x")
    assert not two.send_now(FrameType.DATA, b"x")
    assert two.closed
    with pytest.raises(Exception, match="forgotten"):
        await one.receive()
    assert one.closed
