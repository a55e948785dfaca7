"""A relay as a whole: what it was told wrongly is said at the start, its channel is made again, and all tasks end with it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from klinket.domain.errors import InvalidInput
from klinket.net.channel import controller_context
from klinket.net.clock import PeerClock
from klinket.net.sockets import HostPort
from klinket.relay import channel, serve
from klinket.relay.config import RelayConfig
from klinket.wire import relay as wire


def config_in(state: Path, **more: str) -> RelayConfig:
    anywhere = HostPort("127.0.0.1", 0)
    return RelayConfig(
        listen=anywhere, advertise=anywhere, controller="https://127.0.0.1:1", token="kl_relay_x", state=state, **more  # type: ignore[arg-type]
    )  # fmt: skip


async def test_an_authority_that_is_none_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="certificates in PEM"):
        await asyncio.wait_for(serve.run(config_in(tmp_path, controller_ca="nonsense"), asyncio.Event()), 10)


async def test_a_relay_goes_on_while_its_controller_is_away_and_ends_without_a_task_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    stop = asyncio.Event()
    running = asyncio.create_task(serve.run(config_in(tmp_path), stop))
    async with asyncio.timeout(10):
        while "no live channel" not in caplog.text:
            await asyncio.sleep(0.02)
    assert not running.done()
    stop.set()
    await asyncio.wait_for(running, 10)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_channel_task_that_ends_ends_the_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep_channel(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(serve, "keep_channel", keep_channel)
    with pytest.raises(RuntimeError, match="a fault"):
        await asyncio.wait_for(serve.run(config_in(tmp_path), asyncio.Event()), 10)


async def test_a_report_that_fails_is_noticed_and_ends_with_its_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The controller drops a relay that is silent; the failure itself is in the log, not lost with its task."""
    monkeypatch.setattr(wire, "RELAY_REPORT_SECONDS", 0.01)
    monkeypatch.setattr(wire, "RELAY_SILENCE_SECONDS", 0.2)
    reports = iter([wire.RelayReport(address="a:1", certificate_sha256="", version="")])

    class Connection:
        async def send(self, _: str) -> None: ...

        async def recv(self) -> str:
            await asyncio.sleep(60)
            return ""

        async def __aenter__(self) -> Connection:
            return self

        async def __aexit__(self, *_: object) -> None: ...

    monkeypatch.setattr(channel.channel, "open_channel", lambda *_, **__: Connection())
    keeping = asyncio.create_task(
        channel.keep_channel(
            config_in(tmp_path), controller_context(None), PeerClock(), lambda: next(reports), lambda _: None, asyncio.Event()
        )
    )
    async with asyncio.timeout(10):
        while "silent" not in caplog.text:
            await asyncio.sleep(0.02)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert "relay channel: reports failed" in caplog.text
