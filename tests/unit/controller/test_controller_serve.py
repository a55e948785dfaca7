"""A controller as a whole: the first start says what it must once, and it ends when its web server does."""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn

from examples.deployment import free_port
from klinket.controller import serve
from klinket.controller.config import ControllerConfig
from klinket.domain.errors import InvalidInput
from klinket.net.sockets import HostPort
from tests.eventually import PATIENCE


def config_in(state: Path, port: int | None = None) -> ControllerConfig:
    port = port or free_port()
    return ControllerConfig(
        network="acme", state=state, listen=HostPort("127.0.0.1", port), public_url=f"https://127.0.0.1:{port}"
    )


async def started(config: ControllerConfig) -> tuple[asyncio.Task[None], asyncio.Event, list[str]]:
    """Start a controller and wait until it listens."""
    stop, said = asyncio.Event(), list[str]()
    running = asyncio.create_task(serve.run(config, said.append, stop))
    async with asyncio.timeout(PATIENCE):
        while not running.done():
            with socket.socket() as sock:
                if sock.connect_ex((config.listen.host, config.listen.port)) == 0:
                    break
            await asyncio.sleep(0.02)
    return running, stop, said


async def test_the_first_start_shows_a_token_and_a_second_does_not(tmp_path: Path) -> None:
    config = config_in(tmp_path / "state")
    tokens, links = [], []
    for _ in range(2):
        running, stop, said = await started(config)
        stop.set()
        await asyncio.wait_for(running, PATIENCE)
        tokens.append("".join(said).count("KLINKET_API_TOKEN=kl_api_"))
        links.append(re.findall(r"/console/sign-in/link#kl_link_\w+", "".join(said)))
    assert tokens == [1, 0]
    assert [len(found) for found in links] == [1, 0]
    assert config.authority_file.stat().st_mode & 0o777 == 0o644
    assert config.database.stat().st_mode & 0o777 == 0o600


async def test_what_a_database_of_another_network_was_started_with_is_not_kept(tmp_path: Path) -> None:
    kept: list[str] = []
    stop = asyncio.Event()
    stop.set()

    async def serving(network: str) -> None:
        config = replace(config_in(tmp_path / "state"), network=network)
        await asyncio.wait_for(serve.run(config, lambda _: None, stop, lambda: kept.append(network)), PATIENCE)

    await serving("acme")
    with pytest.raises(InvalidInput):
        await serving("acne")
    assert kept == ["acme"]


async def test_a_controller_ends_aloud_when_its_web_server_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = []
    real = uvicorn.Server.__init__

    def init(self: uvicorn.Server, config: uvicorn.Config) -> None:
        real(self, config)
        servers.append(self)

    monkeypatch.setattr(uvicorn.Server, "__init__", init)
    running, _, _ = await started(config_in(tmp_path / "state"))
    async with asyncio.timeout(PATIENCE):
        while not (servers and servers[0].started):
            await asyncio.sleep(0.01)
    servers[0].should_exit = True
    with pytest.raises(OSError, match="web server"):
        await asyncio.wait_for(running, PATIENCE)


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        running, _, said = await started(config_in(tmp_path / "state", taken.getsockname()[1]))
        with pytest.raises(InvalidInput, match="in use"):
            await asyncio.wait_for(running, PATIENCE)
    assert said == []  # the token is shown once: not by a controller that cannot serve
