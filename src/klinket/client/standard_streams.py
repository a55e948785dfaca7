"""A flow on this process's own standard input and output, as ssh's ProxyCommand wants it.

Two threads copy: either may be a terminal, a pipe, a socket or a file, and is left as it is: others share it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable

from klinket.client.flow import ClientStream
from klinket.wire.pipe_messages import Failure

_BYTES = 65_536


async def carry(flow: ClientStream, input: int = 0, output: int = 1) -> Failure | None:
    """Move bytes between the descriptors and the flow until both directions have ended; returns how it failed, or None.

    The end of `input` is told to the resource, and the resource's end closes `output`, each while the other direction goes on.
    """
    near, far = socket.socketpair()
    written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    _thread(lambda: _copy_in(input, near))
    _thread(lambda: _copy_out(near, output), written)
    try:
        await flow.carry(far)
        await written  # what has come is still on its way out
        return flow.failure
    finally:
        near.close()


def _thread(work: Callable[[], None], done: asyncio.Future[None] | None = None) -> None:
    """Run `work` beside the loop, in a thread that does not keep the process alive: reading a terminal may last for ever."""
    loop = asyncio.get_running_loop()

    def run() -> None:
        work()
        if done is not None:
            try:
                loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(None))
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

    threading.Thread(target=run, daemon=True).start()


def _copy_in(input: int, near: socket.socket) -> None:
    try:
        while data := os.read(input, _BYTES):
            near.sendall(data)
        near.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the flow has ended, or the input cannot be read any more: its other end tells


def _copy_out(near: socket.socket, output: int) -> None:
    try:
        while data := near.recv(_BYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(output, view) :]
        os.close(output)
    except OSError:
        try:
            near.shutdown(socket.SHUT_RDWR)  # nobody reads any more: the resource is to know
        except OSError:
            pass
