"""The control socket: one request, one answer, by who asks; any bytes end in an answer or a closed connection."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis.strategies import binary, one_of, sampled_from, text

from klinket.client.daemon import ask, control_server, protocol
from klinket.client.daemon.control_server import ControlServer
from klinket.client.daemon.paths import Paths
from klinket.client.daemon.pid_file import PidFile
from klinket.client.daemon.protocol import Answer, Request, ResourceRow, StatusReport
from klinket.domain.errors import FlowRefused, KlinketError, ProtocolError, ServiceKeyRevoked
from klinket.domain.flow import FlowFailure
from tests.eventually import eventually

STATUS = b'{"version":1,"verb":"status"}\n'


@pytest.fixture
def paths() -> AsyncIterator[Paths]:  # type: ignore[misc]
    with tempfile.TemporaryDirectory(prefix="klk-") as folder:  # a socket's path has 107 bytes at the most
        yield Paths(Path(folder) / "etc", Path(folder) / "run", Path(folder) / "state", Path(folder) / "log")


@asynccontextmanager
async def serving(paths: Paths, answers: dict[str, Answer | KlinketError] | None = None) -> AsyncIterator[list[Request]]:
    asked = []

    async def handle(request: Request, user: int) -> Answer:
        asked.append(request)
        answer = (answers or {}).get(request.verb, Answer(version=1, ok=True, status=StatusReport(state="online")))
        if isinstance(answer, KlinketError):
            raise answer
        if request.verb == "wait":
            await asyncio.sleep(request.timeout)
        return answer

    server = ControlServer(handle)
    paths.make_run_folder()
    server.listen(paths.socket)
    try:
        yield asked
    finally:
        await server.aclose()
    assert not paths.socket.exists()


async def say(paths: Paths, said: bytes, *, end: bool = True) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(paths.socket))
    with suppress(ConnectionError):
        writer.write(said)
        await writer.drain()
        if end:
            writer.write_eof()
    received = b""
    with suppress(ConnectionError):
        received = await reader.read()
    writer.close()
    return received


@given(one_of(binary(max_size=300), text(max_size=200).map(lambda given: b'{"version":1,"verb":"' + given.encode() + b'"}')))
def test_any_bytes_are_a_request_or_a_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        assert protocol.decode_request(data).verb in protocol.READ_VERBS | protocol.CONTROL_VERBS


@given(binary(max_size=300))
def test_any_bytes_are_an_answer_or_a_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(protocol.decode_answer(data), Answer)


async def test_any_bytes_on_the_socket_end_and_the_daemon_goes_on_answering(paths: Paths) -> None:
    async with serving(paths) as asked:
        piece = one_of(binary(max_size=600), sampled_from([STATUS, b"\n", b"{" * 500, b'{"version":2,"verb":"status"}\n']))
        samples: list[bytes] = []

        @settings(max_examples=60)
        @given(piece, piece)
        def collect(one: bytes, two: bytes) -> None:
            samples.append(one + two)

        collect()
        for sample in samples:
            answer = await say(paths, sample)
            if answer:
                protocol.decode_answer(answer)
        assert protocol.decode_answer(await say(paths, STATUS)).ok
        assert all(request.verb in protocol.READ_VERBS | protocol.CONTROL_VERBS for request in asked)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"x" * (protocol.MAX_REQUEST_BYTES + 1), "the limit is"),
        (b'{"version":9,"verb":"status"}\n', "of version 9"),
        (b'{"version":1,"verb":"format"}\n', "no such verb: 'format'"),
        (b'{"version":1}\n', "not understood"),
        (b"[" * 40_000 + b"\n", "not understood"),
    ],
)
async def test_what_is_not_understood_is_told(said: bytes, told: str, paths: Paths) -> None:
    async with serving(paths) as asked:
        answer = protocol.decode_answer(await say(paths, said))
        assert (answer.ok, answer.code) == (False, "protocol-error")
        assert told in answer.message
        assert asked == []


async def test_a_request_that_does_not_come_is_not_waited_for(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "REQUEST_SECONDS", 0.1)
    async with serving(paths) as asked:
        assert await say(paths, b'{"version":1,', end=False) == b""
        assert asked == []


async def test_a_user_has_so_many_connections_and_no_more(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "MAX_CONNECTIONS_PER_USER", 2)
    monkeypatch.setattr(control_server, "peer_user", lambda _: 1234)
    async with serving(paths) as asked:
        waiting = [asyncio.ensure_future(say(paths, b'{"version":1,"verb":"wait","timeout":60}\n', end=False)) for _ in range(2)]
        await eventually(lambda: len(asked) == 2)
        assert await say(paths, STATUS) == b""
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await eventually(lambda: say(paths, STATUS))


async def test_connections_of_users_keep_root_not_out(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "MAX_CONNECTIONS", 2)
    users = [0, 1002, 1001, 1000]
    monkeypatch.setattr(control_server, "peer_user", lambda _: users.pop())
    async with serving(paths):
        waiting = [asyncio.ensure_future(say(paths, b"", end=False)) for _ in range(2)]
        await eventually(lambda: len(users) == 2)  # both are served
        assert await say(paths, STATUS) == b""  # the third user
        assert await say(paths, STATUS) != b""  # root
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("verb", sorted(protocol.CONTROL_VERBS))
async def test_others_than_root_and_the_daemons_own_user_only_read(
    verb: str, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "peer_user", lambda _: os.geteuid() + 1)
    async with serving(paths) as asked:
        answer = protocol.decode_answer(await say(paths, f'{{"version":1,"verb":"{verb}"}}\n'.encode()))
        assert answer.code == "needs-root"
        assert protocol.decode_answer(await say(paths, STATUS)).ok
        assert [request.verb for request in asked] == ["status"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_who_asks_is_what_the_kernel_says(paths: Paths) -> None:
    program = (
        "import socket,sys,os; os.setuid(65534); s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b\'{"version":1,"verb":"stop","user":0}\\n\'); print(s.recv(4096).decode())'
    )
    paths.run.parent.chmod(0o755)
    async with serving(paths) as asked:
        command = [sys.executable, "-S", "-c", program, str(paths.socket)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
        assert '"needs-root"' in done.stdout, done
        assert asked == []


async def test_a_command_gets_the_error_the_daemon_tells(paths: Paths) -> None:
    refused = FlowRefused(FlowFailure.NO_CONNECTOR, "none", hint="look")
    async with serving(paths, {"wait": refused, "reload": ServiceKeyRevoked("gone")}):
        with pytest.raises(FlowRefused, match="none") as told:
            await asyncio.to_thread(ask.ask, paths, "wait")
        assert (told.value.failure, told.value.hint) == (FlowFailure.NO_CONNECTOR, "look")
        with pytest.raises(KlinketError, match="gone"):
            await asyncio.to_thread(ask.ask, paths, "reload")


async def test_ten_thousand_resources_fit_into_an_answer(paths: Paths) -> None:
    rows = [ResourceRow(name="n" * 250, address="a" * 253, alias="b" * 253) for _ in range(10_000)]
    async with serving(paths, {"resources": Answer(version=1, ok=True, resources=rows)}):
        assert (await asyncio.to_thread(ask.ask, paths, "resources")).resources == rows


def test_without_a_daemon_the_state_is_told_from_what_lies_there(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KLINKET_SERVICE_KEY", raising=False)
    assert ask.status(paths).state == "uninitialized"
    paths.etc.mkdir()
    paths.key_file.write_text("{}")
    assert ask.status(paths).state == "not-running"
    with pytest.raises(ask.NotRunning):
        ask.ask(paths, "resources")


def test_a_daemon_that_does_not_answer_is_not_one_that_does_not_run(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "ANSWER_SECONDS", 0.2)
    paths.run.mkdir()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(paths.socket))
        deaf.listen()
        assert ask.status(paths).state == "not-answering"
    hold = "import sys,time; from pathlib import Path; from klinket.client.daemon.pid_file import PidFile"
    program = f"{hold}; lock = PidFile(Path(sys.argv[1])); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, str(paths.pid_file)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            paths.socket.unlink()
            assert ask.status(paths).state == "not-answering"
            with pytest.raises(KlinketError, match=f"process {other.pid}"):
                PidFile(paths.pid_file)
        finally:
            other.kill()
