"""What a mail server may take of the controller's time and memory, before and after STARTTLS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from klinket.controller.sinks import smtp
from klinket.net import outbound
from tests.unit.controller.running import Running
from tests.unit.controller.sinks.conftest import Receiver, made, quoted, round_of, state

Bounded = Callable[..., AbstractContextManager[None]]


class Hostile:
    """A mail server that answers EHLO without end, after STARTTLS or before; `pause` in seconds between lines."""

    def __init__(self, receiver: Receiver, *, in_tls: bool, line: bytes, pause: float) -> None:
        self.receiver = receiver
        self.in_tls = in_tls
        self.line = line
        self.pause = pause
        self.sent = 0
        self.ended = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example\r\n")
        await reader.readline()
        try:
            if self.in_tls:
                writer.write(b"250-mail.example\r\n250 STARTTLS\r\n")
                await reader.readline()
                writer.write(b"220 go on\r\n")
                await writer.drain()
                await writer.start_tls(self.receiver.context)
                await reader.readline()
            while True:
                writer.write(self.line)
                await writer.drain()
                self.sent += len(self.line)
                await asyncio.sleep(self.pause)
        finally:
            self.ended.set()


@contextmanager
def _short(bounded: Bounded, sock: Any) -> Iterator[None]:
    with bounded(sock, 1.0):
        yield


async def _delivered(controller: Running, receiver: Receiver, server: Hostile) -> tuple[str, float]:
    """Return the error of a delivery to `server`, and how long it took in seconds."""
    async with receiver.listening(server.handle, tls=False):
        where = f'address: "{receiver.address}", authority: {quoted(receiver.authority)}'
        people = 'sender: "a@b.example", recipients: ["c@d.example"]'
        assert (await made(controller, f'name: "mail", kind: SMTP, streams: [AUDIT], {where}, {people}'))["ok"] is True
        begun = time.monotonic()
        async with asyncio.timeout(30):
            await round_of(controller)
            took = time.monotonic() - begun
            await server.ended.wait()
    return str((await state(controller))["lastError"]), took


@pytest.mark.parametrize("in_tls", [False, True])
async def test_a_mail_server_that_drips_is_left(
    controller: Running, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, in_tls: bool
) -> None:
    bounded = outbound.bounded
    monkeypatch.setattr(smtp, "bounded", lambda sock: _short(bounded, sock))
    server = Hostile(receiver, in_tls=in_tls, line=b"250-x\r\n", pause=0.2)
    error, took = await _delivered(controller, receiver, server)
    assert "took longer than 1 s" in error
    assert took < 10, "the thread is free again long before the server stops"


@pytest.mark.parametrize("in_tls", [False, True])
async def test_a_mail_server_that_floods_is_left(controller: Running, receiver: Receiver, in_tls: bool) -> None:
    server = Hostile(receiver, in_tls=in_tls, line=b"250-" + b"y" * 2_000 + b"\r\n", pause=0)
    error, _ = await _delivered(controller, receiver, server)
    assert "longer than 65536 bytes" in error
    assert server.sent < 16 << 20, "what is sent beyond fits into the buffers of the kernel"
