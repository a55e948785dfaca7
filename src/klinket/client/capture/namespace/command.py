"""The parent's side of a namespace: forks the child, serves its sockets, waits for it."""

from __future__ import annotations

import array
import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from klinket.client.capture import resolv_conf
from klinket.client.capture.command import CANNOT_EXECUTE, NOT_FOUND, NotExecuted
from klinket.client.capture.connects import HeldConnects
from klinket.client.capture.datagrams import CapturedDatagrams
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.namespace import inside, rules
from klinket.client.capture.resolver import NameStub
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.client.ports import FlowOpener
from klinket.domain.errors import CaptureImpossible

#: Seconds for the child's set-up: three short programs.
PREPARE_SECONDS = 20.0
_REPORT_BYTES = 4096
_RESOLV_CONF = Path("/etc/resolv.conf")


class NamespaceCommand:
    """Implements CapturedCommand. Make it with `fork`, before there are threads and an event loop."""

    def __init__(self, pid: int, channel: socket.socket, resolvers: Sequence[str], told: Callable[[str], None]) -> None:
        self._pid = pid
        self._channel = channel
        self._resolvers = resolvers
        self._told = told
        self._sockets: list[socket.socket] = []
        self._served: list[HeldConnects | CapturedDatagrams | NameStub] = []
        self._exit_code: int | None = None

    @classmethod
    def fork(
        cls,
        arguments: Sequence[str],
        hidden: Sequence[Path],
        told: Callable[[str], None],
        pass_descriptors: Sequence[int] = (),
        emptied: Sequence[int] = (),
    ) -> NamespaceCommand:
        """Start the child; it sets itself up while this process logs in. `told` gets a line for each refused flow.

        `pass_descriptors`: files above 2 that the command gets; `emptied`: standard ones that hold the key.
        """
        try:
            found = resolv_conf.parse(_RESOLV_CONF.read_text(errors="replace"))
        except OSError:
            found = resolv_conf.parse("")
        command = inside.Command(arguments, hidden, found.with_resolver(rules.DNS_ADDRESS), pass_descriptors, emptied)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            inside.become(command, theirs, parent)
        theirs.close()
        ours.setblocking(False)
        return cls(pid, ours, found.resolvers, told)

    async def prepare(self) -> None:
        """Take over the child's sockets; raises CaptureImpossible with its reason."""
        try:
            async with asyncio.timeout(PREPARE_SECONDS):
                await _readable(self._channel)
        except TimeoutError as error:
            raise CaptureImpossible(f"the namespace was not ready within {PREPARE_SECONDS:.0f} s") from error
        text, descriptors = _receive_descriptors(self._channel, len(inside.SOCKETS))
        self._sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if text != inside.READY or len(self._sockets) != len(inside.SOCKETS):
            reason = text.decode(errors="replace").removeprefix("failed:")
            raise CaptureImpossible(reason or "the namespace could not be made")

    async def serve(self, client: FlowOpener) -> None:
        """Begin to answer the queue, the datagrams and the names."""
        named = dict(zip(inside.SOCKETS, self._sockets, strict=True))
        names = SyntheticAddresses()
        doorway = Doorway(client, names, self._told)
        connects = HeldConnects(named["queue"], [named["listener"]], doorway)
        datagrams = CapturedDatagrams(named["datagrams"], named["raw"], doorway)
        stub = NameStub(named["dns"], named["dns_listener"], client, names, self._resolvers)
        for part in (connects, datagrams, stub):
            part.start()
            self._served.append(part)

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
            descriptor = os.pidfd_open(self._pid)
            try:
                await _readable(descriptor)
            finally:
                os.close(descriptor)
            self._reap()
        assert self._exit_code is not None
        return self._exit_code

    def _reap(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._exit_code = code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        """Pass a signal on to the command."""
        if self._exit_code is None:
            os.kill(self._pid, number)

    async def aclose(self) -> None:
        """End the child if it still runs; stop serving."""
        if self._exit_code is None:
            os.kill(self._pid, signal.SIGKILL)
            self._reap()
        for part in self._served:
            await part.aclose()
        for sock in self._sockets:
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
