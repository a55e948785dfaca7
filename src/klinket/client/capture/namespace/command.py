"""The parent's side of a namespace: serves the sockets of the child, and waits for it."""

from __future__ import annotations

import array
import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from klinket.client.capture.command import CANNOT_EXECUTE, NOT_FOUND, NotExecuted
from klinket.client.capture.namespace import inside
from klinket.client.capture.namespace.forked import Forked
from klinket.domain.errors import CaptureImpossible

if TYPE_CHECKING:
    from klinket.client.capture.namespace.serving import Serving
    from klinket.client.ports import FlowOpener

#: Seconds for the child's set-up: three short programs.
PREPARE_SECONDS = 20.0
_REPORT_BYTES = 4096


class NamespaceCommand:
    """Implements CapturedCommand for a child that was forked."""

    def __init__(self, forked: Forked, told: Callable[[str], None], *, host_loopback: bool = False) -> None:
        """`told` gets a line for each refused flow; `host_loopback`: HOST_LOOPBACK leads to this machine's own."""
        self.pid = forked.pid
        self._channel = forked.channel
        self._resolvers = forked.resolvers
        self._told = told
        self._host_loopback = host_loopback
        self._sockets: dict[str, socket.socket] = {}
        self._served: Sequence[Serving] = ()
        self._exit_code: int | None = None

    async def prepare(self) -> None:
        """Take over the child's sockets; raises CaptureImpossible with its reason."""
        import klinket.client.capture.namespace.serving  # noqa: F401 - now, while the login is on its way

        try:
            async with asyncio.timeout(PREPARE_SECONDS):
                await _readable(self._channel)
        except TimeoutError as error:
            raise CaptureImpossible(f"the namespace was not ready within {PREPARE_SECONDS:.0f} s") from error
        text, descriptors = _receive_descriptors(self._channel, inside.MAX_SOCKETS)
        word, *names = text.split(b" ")
        self._sockets = {name.decode(): socket.socket(fileno=one) for name, one in zip(names, descriptors, strict=False)}
        if word != inside.READY or len(names) != len(descriptors):
            reason = text.decode(errors="replace").removeprefix("failed:")
            raise CaptureImpossible(reason or "the namespace could not be made")

    async def serve(self, client: FlowOpener) -> None:
        """Begin to answer the queue, the datagrams and the names."""
        from klinket.client.capture.namespace.serving import serve

        self._served = serve(self._sockets, client, self._resolvers, self._told, host_loopback=self._host_loopback)

    async def start(self) -> None:
        """Let the child execute the command; raises NotExecuted."""
        try:
            self._channel.send(inside.GO)
            await _readable(self._channel)
            text = self._channel.recv(_REPORT_BYTES).decode(errors="replace")
        except OSError:
            text = "failed:the namespace is gone"
        if text.startswith("exec:"):
            message = text.removeprefix("exec:")
            raise NotExecuted(message, NOT_FOUND if message.endswith("command not found") else CANNOT_EXECUTE)
        if text:
            raise CaptureImpossible(text.removeprefix("failed:"))
        # The channel is closed on exec: nothing more to read means that the command runs.

    async def wait(self) -> int:
        """Return the exit code of the command."""
        if self._exit_code is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                await _readable(descriptor)
            finally:
                os.close(descriptor)
            self._reap()
        assert self._exit_code is not None
        return self._exit_code

    def _reap(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._exit_code = code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        """Pass a signal on to the command."""
        if self._exit_code is None:
            os.kill(self.pid, number)

    async def aclose(self) -> None:
        """End the child if it still runs; stop serving."""
        if self._exit_code is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()
        for part in self._served:
            await part.aclose()
        for sock in self._sockets.values():
            if sock.fileno() >= 0:
                sock.close()
        self._channel.close()


async def _readable(file: socket.socket | int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(file, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(file)


def _receive_descriptors(channel: socket.socket, count: int) -> tuple[bytes, list[int]]:
    """Return the message and its descriptors, which no child inherits."""
    try:
        text, ancillary, _, _ = channel.recvmsg(_REPORT_BYTES, socket.CMSG_SPACE(count * 4), socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return b"", []
    descriptors: array.array[int] = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return text, list(descriptors)
