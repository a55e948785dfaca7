"""The fallback of `klinket run`: proxies named in the command's environment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from klinket.client.capture import proxy_variables
from klinket.client.capture.command import NotExecuted
from klinket.client.capture.variables import VariablesCommand
from klinket.domain.flow import FlowFailure
from klinket.net.sockets import HostPort
from tests.unit.client.conftest import FakeClient

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
Make = Callable[..., VariablesCommand]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
async def make(told: list[str]) -> AsyncIterator[Make]:
    made: list[VariablesCommand] = []

    def command(*arguments: str) -> VariablesCommand:
        made.append(VariablesCommand(arguments, os.environ, told.append))
        return made[-1]

    yield command
    for one in made:
        await one.aclose()


def test_each_variable_is_there_in_both_spellings() -> None:
    named = proxy_variables.of(str(HostPort("127.0.0.1", 8080)), str(HostPort("127.0.0.1", 1080)))
    for name, value in {
        "HTTP_PROXY": "http://127.0.0.1:8080",
        "HTTPS_PROXY": "http://127.0.0.1:8080",
        "ALL_PROXY": "socks5h://127.0.0.1:1080",  # h: names are resolved at the other end
    }.items():
        assert named[name] == named[name.lower()] == value
    assert "127.0.0.1" in named["NO_PROXY"]


async def test_the_command_finds_proxies_that_answer(make: Make, client: FakeClient) -> None:
    script = (
        "import os, socket; host, port = os.environ['HTTPS_PROXY'].removeprefix('http://').split(':');"
        "s = socket.create_connection((host, int(port)), 5); s.sendall(b'CONNECT echo.internal:7 HTTP/1.1\\r\\n\\r\\n');"
        "raise SystemExit(0 if s.recv(12) == b'HTTP/1.1 200' else 1)"
    )
    command = make(sys.executable, "-c", script)
    await command.prepare()
    await command.serve(client)
    await command.start()
    assert await asyncio.wait_for(command.wait(), 20) == 0
    assert [one.host for one in client.asked] == ["echo.internal"]


async def test_a_refusal_is_told_with_host_port_and_word(make: Make, client: FakeClient, told: list[str]) -> None:
    client.refuse("echo.internal", FlowFailure.REFUSED)
    script = (
        "import os, socket; host, port = os.environ['https_proxy'].removeprefix('http://').split(':');"
        "s = socket.create_connection((host, int(port)), 5); s.sendall(b'CONNECT echo.internal:7 HTTP/1.1\\r\\n\\r\\n');"
        "s.recv(100)"
    )
    command = make(sys.executable, "-c", script)
    await command.serve(client)
    await command.start()
    await asyncio.wait_for(command.wait(), 20)
    assert told == ["klinket: echo.internal:7: refused: echo.internal said no"]


async def test_a_signal_while_the_command_is_being_started_reaches_it(make: Make) -> None:
    command = make("sleep", "60")
    starting = asyncio.ensure_future(command.start())
    await asyncio.sleep(0)  # under way, but its number is not known yet
    command.signal(signal.SIGTERM)
    await starting
    assert await asyncio.wait_for(command.wait(), 20) == 128 + signal.SIGTERM


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)])
async def test_the_exit_code_is_the_commands(make: Make, client: FakeClient, script: str, code: int) -> None:
    command = make("sh", "-c", script)
    await command.serve(client)
    await command.start()
    assert await asyncio.wait_for(command.wait(), 20) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
async def test_signals_reach_the_command(
    make: Make, client: FakeClient, number: signal.Signals, tmp_path: object, request: pytest.FixtureRequest
) -> None:
    if (
        signal.getsignal(number) is signal.SIG_IGN
    ):  # SIGINT, in the background of a shell: a shell never traps what it inherits so
        request.addfinalizer(partial(signal.signal, number, signal.signal(number, signal.SIG_DFL)))
    ready = f"{tmp_path}/ready"
    command = make("sh", "-c", f"trap 'exit 40' {number.name.removeprefix('SIG')}; : >'{ready}'; while :; do sleep 0.05; done")
    await command.serve(client)
    await command.start()
    async with asyncio.timeout(20):
        while not os.path.exists(ready):
            await asyncio.sleep(0.01)
        command.signal(number)
        assert await command.wait() == 40
    command.signal(number)  # nobody is there any more: no error


@pytest.mark.parametrize(("program", "code"), [("/nonexistent/program", 127), ("/etc/passwd", 126)])
async def test_what_cannot_be_executed_ends_as_in_a_shell(make: Make, client: FakeClient, program: str, code: int) -> None:
    command = make(program)
    await command.serve(client)
    with pytest.raises(NotExecuted) as failed:
        await command.start()
    assert failed.value.exit_code == code
    assert program in failed.value.message


async def test_closing_ends_a_command_that_still_runs(make: Make, client: FakeClient) -> None:
    command = make("sleep", "60")
    await command.serve(client)
    await command.start()
    waiting = asyncio.ensure_future(command.wait())
    await asyncio.wait_for(command.aclose(), 10)
    assert await asyncio.wait_for(waiting, 5) == 128 + signal.SIGTERM
