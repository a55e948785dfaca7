"""The daemon against a real controller, relay and connector: keys swapped in place, the end of a key, and what is told of it."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from klinket.client.daemon import keeper, sessions
from klinket.client.daemon.daemon import Daemon
from klinket.client.daemon.paths import Paths
from klinket.client.daemon.protocol import NeedsRoot, Request
from klinket.client.daemon.settings import Settings
from klinket.client.daemon.states import State
from klinket.client.ports import FlowOpener
from klinket.domain.errors import (
    ControllerUnreachable,
    FlowRefused,
    InvalidInput,
    ServiceKeyRevoked,
    ServiceKeyUnknown,
    SessionOver,
)
from klinket.domain.flow import FlowFailure
from klinket.wire.key_file import KeyFile
from tests.eventually import eventually
from tests.unit.client.daemon.test_daemon_process import Capture
from tests.unit.whole import Whole, everything

Start = Callable[..., Daemon]


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with everything(tmp_path) as made:
        yield made


@pytest.fixture
async def start(whole: Whole) -> AsyncIterator[Start]:
    """Return a function that starts a daemon with a key; `file` holds the key that is set up now."""
    async with AsyncExitStack() as stack:

        def run(
            key: KeyFile, *, file: list[KeyFile] | None = None, capture: Capture | None = None, settings: Settings = Settings()
        ) -> Daemon:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="klk-")))
            paths = Paths(folder, folder, folder, folder / "log")
            make = (lambda _: capture) if capture is not None else None
            daemon = Daemon(paths, settings, key, make, lambda: file[-1] if file else None)
            running = asyncio.ensure_future(daemon.run())

            async def end() -> None:
                daemon.stop.set()
                await running

            stack.push_async_callback(end)
            return daemon

        yield run


async def online(daemon: Daemon) -> Daemon:
    await eventually(lambda: daemon.verdict().state is State.ONLINE)
    return daemon


def state_of(daemon: Daemon) -> State:
    return daemon.verdict().state


async def test_a_daemon_is_online_once_capture_and_a_connector_are_there(whole: Whole, start: Start) -> None:
    capture = Capture()
    daemon = start(whole.key_file, capture=capture)
    assert state_of(daemon) is State.AUTHENTICATING
    await online(daemon)
    assert capture.followed == [["Echo"]]
    told = daemon.status()
    assert (told.resources, told.rules, told.dns, told.controller) == (1, True, True, "attached")
    assert [(row.resource, row.reached) for row in told.networks] == [("Echo", True)]
    assert (told.key, told.service_account) == (whole.key_file.key_id, whole.key_file.service_account_id)


async def test_before_the_first_session_no_host_is_anybodys(whole: Whole) -> None:
    opener: FlowOpener = sessions.Sessions(lambda: None)
    for ask in (lambda: opener.claims("db.internal"), lambda: opener.resource_for("db.internal")):
        with pytest.raises(FlowRefused) as caught:
            ask()
        assert caught.value.failure is FlowFailure.CONTROLLER_UNREACHABLE


async def test_a_new_key_of_the_account_takes_new_flows_and_lets_live_ones_go_on(
    whole: Whole, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "RETIRE_SECONDS", 0.1)
    monkeypatch.setattr(sessions, "LOOK_SECONDS", 0.05)
    file = [whole.key_file]
    daemon = await online(start(whole.key_file, file=file))
    former = daemon.sessions.current
    old = await whole.flow(daemon.sessions)  # type: ignore[arg-type]
    file.append((await whole.controller.add_key(whole.account, name="next"))[1])
    assert await daemon.reload() == "new flows use the new key; 1 flow of the former session goes on"
    assert state_of(daemon) is State.ONLINE, "not for a moment unusable"
    assert (daemon.sessions.current is former, daemon.status().key) == (False, file[-1].key_id)
    new = await whole.flow(daemon.sessions)  # type: ignore[arg-type]
    await asyncio.sleep(0.3)
    await old.echo()
    assert (daemon.status().retiring_sessions, daemon.status().flows) == (1, 2)
    # The new key's revocation is none of the old session's business, and the other way round.
    await whole.controller.revoke_key(whole.key)
    assert await old.is_reset()
    await new.echo()
    await eventually(lambda: daemon.status().retiring_sessions == 0)
    assert state_of(daemon) is State.ONLINE


async def test_a_replaced_session_ends_with_its_last_flow(whole: Whole, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "RETIRE_SECONDS", 0.1)
    monkeypatch.setattr(sessions, "LOOK_SECONDS", 0.05)
    file = [whole.key_file]
    daemon = await online(start(whole.key_file, file=file))
    old = await whole.flow(daemon.sessions)  # type: ignore[arg-type]
    file.append((await whole.controller.add_key(whole.account, name="next"))[1])
    await daemon.reload()
    await asyncio.sleep(0.3)
    await old.echo()
    old.program.shutdown(1)
    await old.carrying
    await eventually(lambda: daemon.status().retiring_sessions == 0)
    await eventually_one_session(whole)


async def eventually_one_session(whole: Whole) -> None:
    async def one() -> bool:
        return len([row for row in await whole.sessions() if row.ended_at_ms is None]) == 1

    await eventually(one)


async def test_a_key_of_another_account_ends_the_flows_of_the_former_one(whole: Whole, start: Start) -> None:
    file = [whole.key_file]
    daemon = await online(start(whole.key_file, file=file, capture=(capture := Capture())))
    old = await whole.flow(daemon.sessions)  # type: ignore[arg-type]
    granted_here = await whole.controller.add_resource(whole.office, "Other", "10.9.9.9")
    account = await whole.controller.add_account("other", [granted_here])
    file.append((await whole.controller.add_key(account, name="other"))[1])
    assert await daemon.reload() == "the key is of another service account: 1 flow of the former one was reset"
    assert await old.is_reset()
    await eventually(lambda: capture.followed[-1] == ["Other"])
    with pytest.raises(FlowRefused) as caught:
        await daemon.sessions.open_stream(whole.resource.destination)
    assert caught.value.failure is FlowFailure.NOT_GRANTED
    assert daemon.sessions.claims("127.0.0.1"), "what the former account was granted is dialled past klinket by nobody"


async def test_a_key_that_is_refused_leaves_the_session_as_it_is(whole: Whole, start: Start) -> None:
    file = [whole.key_file]
    daemon = await online(start(whole.key_file, file=file))
    flow = await whole.flow(daemon.sessions)  # type: ignore[arg-type]
    id, key = await whole.controller.add_key(whole.account, name="dead")
    await whole.controller.revoke_key(id)
    file.append(key)
    with pytest.raises(ServiceKeyRevoked):
        await daemon.reload()
    await flow.echo()
    assert state_of(daemon) is State.ONLINE
    assert any("the newest key is not in use" in problem for problem in daemon.status().problems)
    file.append(whole.key_file)
    assert await daemon.reload() == "this key is in use already"
    assert daemon.status().problems == []


async def test_the_same_key_again_changes_nothing(whole: Whole, start: Start) -> None:
    daemon = await online(start(whole.key_file, file=[whole.key_file]))
    before = daemon.sessions.current
    assert await daemon.reload() == "this key is in use already"
    assert daemon.sessions.current is before


async def test_a_revoked_key_is_told_and_what_it_was_granted_stays_claimed(whole: Whole, start: Start) -> None:
    file = [whole.key_file]
    daemon = await online(start(whole.key_file, file=file, capture=(capture := Capture())))
    await whole.controller.revoke_key(whole.key)
    await eventually(lambda: state_of(daemon) is State.KEY_REVOKED)
    assert daemon.sessions.claims("127.0.0.1")
    assert not capture.closed
    with pytest.raises(FlowRefused) as caught:
        await daemon.sessions.open_stream(whole.resource.destination)
    assert caught.value.failure is FlowFailure.SERVICE_KEY_REVOKED
    with pytest.raises(ServiceKeyRevoked):
        await daemon.wait([], 5)
    file.append((await whole.controller.add_key(whole.account, name="next"))[1])
    await daemon.reload()
    await online(daemon)


async def test_a_session_that_ends_for_another_reason_is_begun_anew(
    whole: Whole, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MAX_DELAY_SECONDS", 0.05)
    daemon = await online(start(whole.key_file))
    before = daemon.sessions.current
    assert before is not None
    before._end(SessionOver("ended by the test"))
    await eventually(lambda: daemon.sessions.current is not before)
    await online(daemon)


async def test_an_unknown_key_is_waited_for_no_longer_than_it_takes_to_say_so(whole: Whole, start: Start) -> None:
    id, key = await whole.controller.add_key(whole.account, name="gone")
    await whole.controller.revoke_key(id)
    await whole.controller.change("mutation ($k: ID!) { serviceAccountKeyDelete(id: $k) { ok error } }", k=id)
    daemon = start(key)
    with pytest.raises(ServiceKeyUnknown):
        await daemon.wait([], 15)
    assert state_of(daemon) is State.KEY_REFUSED


async def test_a_controller_that_is_away_is_offline_and_comes_back_by_itself(
    whole: Whole, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from klinket.client import client

    async def away(*_: object) -> None:
        raise ControllerUnreachable("cannot reach the controller")

    with monkeypatch.context() as patched:
        patched.setattr(client, "log_in", away)
        daemon = start(whole.key_file)
        await eventually(lambda: state_of(daemon) is State.OFFLINE)
        with pytest.raises(ControllerUnreachable):
            await daemon.wait([], 0.2)
    await online(daemon)


async def test_a_network_without_a_connector_is_told_by_a_resource_in_it(whole: Whole, start: Start) -> None:
    daemon = await online(start(whole.key_file))
    empty = await whole.controller.add_network("empty")
    there = await whole.controller.add_resource(empty, "Nowhere", "10.8.8.8")
    grant = "mutation ($r: ID!, $p: ID!) { resourceAccessAdd(resourceId: $r, access: [{principalId: $p}]) { ok error } }"
    await whole.controller.change(grant, r=there, p=whole.account)
    await eventually(lambda: state_of(daemon) is State.NO_CONNECTOR)
    assert "'Nowhere'" in daemon.status().reason
    with pytest.raises(FlowRefused) as caught:
        await daemon.wait([], 0.1)
    assert caught.value.failure is FlowFailure.NO_CONNECTOR


async def test_wait_dials_what_has_a_port(whole: Whole, start: Start) -> None:
    daemon = start(whole.key_file)
    await daemon.wait([f"Echo:{whole.resource.destination.port}"], 15)
    with pytest.raises(FlowRefused) as caught:
        await daemon.wait(["Nothing"], 0.2)
    assert caught.value.failure is FlowFailure.NOT_GRANTED


async def test_resources_are_dialled_only_for_users_the_daemon_serves(whole: Whole, start: Start) -> None:
    daemon = await online(start(whole.key_file, settings=Settings(users=(4711,))))
    request = Request(version=1, verb="wait", resources=["Echo"], timeout=5)
    for user in (0, 4711):
        assert (await daemon._answer(request, user)).ok
    with pytest.raises(NeedsRoot):
        await daemon._answer(request, 4712)
    assert (await daemon._answer(Request(version=1, verb="wait", timeout=5), 4712)).ok


async def test_a_proxy_that_cannot_listen_ends_the_daemon_and_is_named(whole: Whole) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, tempfile.TemporaryDirectory(prefix="klk-") as folder:
        paths = Paths(Path(folder), Path(folder), Path(folder), Path(folder) / "log")
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = Daemon(paths, Settings(socks=address), whole.key_file, None, lambda: None)
        with pytest.raises(InvalidInput, match=f"cannot listen on {address}"):
            await daemon.run()


async def test_a_proxy_of_a_daemon_with_a_token_serves_nobody_without_it(whole: Whole) -> None:
    with tempfile.TemporaryDirectory(prefix="klk-") as folder:
        paths = Paths(Path(folder), Path(folder), Path(folder), Path(folder) / "log")
        wanted = Settings(http_proxy="127.0.0.1:0", users=(4711,))
        daemon = Daemon(paths, wanted, whole.key_file, None, lambda: None, "a-token-for-tests")
        running = asyncio.ensure_future(daemon.run())
        async with asyncio.timeout(20):
            while not daemon.status().proxies:
                await asyncio.sleep(0.01)
            port = int(daemon.status().proxies[0].rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"CONNECT db.internal:5432 HTTP/1.1\r\n\r\n")
            assert (await reader.readline()).split()[1] == b"407"
            writer.close()
            daemon.stop.set()
            await running


async def test_a_daemon_without_one_of_its_tasks_ends(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="klk-") as folder:
        paths = Paths(Path(folder), Path(folder), Path(folder), Path(folder) / "log")
        daemon = Daemon(paths, Settings(), whole.key_file, lambda _: Capture(), lambda: None)

        async def broken() -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr(daemon.keeper, "run", broken)
        with pytest.raises(RuntimeError, match="a defect"):
            await daemon.run()
