"""A connector that is stopped: flows end by themselves, the state folder says how it goes, and the command waits for that."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from klinket.connector import drain as connector_drain
from klinket.connector import run_file
from klinket.connector.drain import ConnectorNotRunning, DrainIncomplete, drain
from klinket.connector.run_file import ConnectorAlreadyRunning, RunFile, RunState
from klinket.controller.app import connectors
from tests.eventually import eventually
from tests.unit.whole import Whole, everything


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with everything(tmp_path, drain_seconds=30.0) as made:
        yield made


async def test_it_takes_no_new_flow_and_waits_for_live_ones(whole: Whole) -> None:
    flow = await whole.flow(await whole.client())
    ending = asyncio.ensure_future(whole.end_connector())
    await eventually(lambda: whole.connector._core.draining)
    await eventually(lambda: not any(whole.controller.peers.online().values()))  # nobody is sent there any more
    await flow.echo(b"still here")
    assert run_file.read(whole.state / "connector") == (RunState(os.getpid(), True, 1), True)
    flow.program.close()
    await asyncio.wait_for(ending, 20)
    assert run_file.read(whole.state / "connector") == (RunState(os.getpid(), True, 0), False)


async def test_the_controller_hears_of_an_orderly_end_at_once(whole: Whole) -> None:
    async def state() -> str:
        (row,) = await whole.controller.read(lambda tx: tx.connectors.find())
        return connectors.state(row, round(whole.controller.clock() * 1000))

    assert await state() == "ALIVE"
    await asyncio.wait_for(whole.end_connector(), 20)
    async with asyncio.timeout(5):
        while await state() == "ALIVE":
            await asyncio.sleep(0.05)
    assert await state() == "DEAD_NO_HEARTBEAT"


async def test_a_client_knows_how_loaded_it_is_and_that_it_is_there(whole: Whole) -> None:
    client = await whole.client()
    (link,) = client._links.values()
    whole.connector._links._load._percent = 90
    whole.connector._links._load._since = (float("inf"), 0.0)
    assert await link.answers(10)
    assert client.core.choice.weight(whole.connector_id and next(iter(client._links))) < 1.0


def test_nobody_is_taken_for_running_who_has_ended(tmp_path: Path) -> None:
    assert run_file.read(tmp_path) == (None, False)
    held = RunFile(tmp_path)
    held.tell(draining=False, flows=12_345)
    assert run_file.read(tmp_path) == (RunState(os.getpid(), False, 12_345), True)
    held.tell(draining=True, flows=3)
    assert run_file.read(tmp_path) == (RunState(os.getpid(), True, 3), True)
    held.close()
    assert run_file.read(tmp_path) == (RunState(os.getpid(), True, 3), False)
    (tmp_path / "running.json").write_text("half")
    assert run_file.read(tmp_path) == (None, False)


def test_a_second_connector_of_a_folder_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    first = RunFile(tmp_path)
    first.tell(draining=False, flows=1)
    files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConnectorAlreadyRunning, match="another connector runs") as refused:
        RunFile(tmp_path)
    assert "--state" in str(refused.value.hint)
    assert len(os.listdir("/proc/self/fd")) == files
    assert run_file.read(tmp_path) == (RunState(os.getpid(), False, 1), True)
    first.close()
    RunFile(tmp_path).close()


def test_the_run_file_is_never_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("untouched")
    (tmp_path / "running.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"[Ss]ymbolic"):
        RunFile(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "untouched"


def test_without_a_running_connector_the_command_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConnectorNotRunning, match="no connector runs"):
        drain(tmp_path, print)


class Scripted:
    """Stands for what a connector tells, look by look, and keeps the signals it gets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *looks: tuple[RunState | None, bool]) -> None:
        self.looks = list(looks)
        self.signals: list[int] = []
        self.told: list[int] = []
        monkeypatch.setattr(run_file, "read", lambda _: self.looks.pop(0) if len(self.looks) > 1 else self.looks[0])
        monkeypatch.setattr(os, "kill", lambda _, number: self.signals.append(number))
        monkeypatch.setattr(connector_drain, "LOOK_SECONDS", 0.001)


def test_the_command_tells_how_it_goes_and_ends_with_the_last_flow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = Scripted(
        monkeypatch, (RunState(7, False, 2), True), (RunState(7, True, 2), True), (RunState(7, True, 1), True),
        (RunState(7, True, 0), False),
    )  # fmt: skip
    drain(tmp_path, one.told.append)
    assert one.signals == [signal.SIGTERM]
    assert one.told == [2, 1]


def test_flows_that_were_reset_are_no_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = Scripted(monkeypatch, (RunState(7, False, 2), True), (RunState(7, True, 2), True), (RunState(7, True, 2), False))
    with pytest.raises(DrainIncomplete, match="2 flows were reset"):
        drain(tmp_path, one.told.append)


def test_one_that_drains_already_gets_no_second_signal_and_the_time_is_bounded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = Scripted(monkeypatch, (RunState(7, True, 2), True))
    with pytest.raises(DrainIncomplete, match="still runs, with 2 live flows"):
        drain(tmp_path, one.told.append, timeout=0.05)
    assert one.signals == []
