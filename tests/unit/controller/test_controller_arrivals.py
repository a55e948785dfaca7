"""Sessions that come at the same time share one read, and nobody is served by a read that had begun before it came."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import pytest

from klinket.controller import arrivals, web
from klinket.controller.app import sessions, snapshot
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.snapshot import Snapshot
from klinket.controller.app.store_errors import StoreUnreachable
from klinket.controller.arrivals import Arrivals
from klinket.domain.errors import ServiceKeyRevoked, SessionOver
from klinket.domain.grant import Principal
from klinket.domain.identifiers import Kid, ServiceAccountUuid, SessionId
from klinket.net import collector
from klinket.wire import control
from tests.unit.controller.running import Running, Session
from tests.unit.controller.test_controller_channels import logged_in

pytestmark = pytest.mark.sqlite_only


class SlowStore:
    """A store whose reads wait until they are let go; counts them. `snapshot.take` is replaced by a list of who was asked for."""

    def __init__(self) -> None:
        self.reads: list[asyncio.Future[None]] = []

    async def read(self, query: Callable[[Any], Any]) -> Any:
        asked = query(None)
        let_go = asyncio.get_running_loop().create_future()
        self.reads.append(let_go)
        await let_go
        return asked


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> tuple[SlowStore, Arrivals]:
    monkeypatch.setattr(snapshot, "take", lambda _, principals: frozenset(one.session for one in principals))
    store = SlowStore()
    return store, Arrivals(cast(Store, store))


def principal(number: int) -> Principal:
    return Principal(ServiceAccountUuid("a"), Kid("k"), SessionId(f"s{number}"))


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def come(at: Arrivals, *numbers: int) -> list[asyncio.Task[Snapshot]]:
    return [asyncio.create_task(at.snapshot_for(principal(number))) for number in numbers]


async def test_who_comes_while_a_read_runs_shares_the_next(slow: tuple[SlowStore, Arrivals]) -> None:
    store, at = slow
    (first,) = come(at, 0)
    await turns()
    others = come(at, *range(1, 100))
    await turns()
    assert len(store.reads) == 1
    store.reads[0].set_result(None)
    assert cast(Any, await first) == {"s0"}
    await turns()
    assert len(store.reads) == 2
    assert not any(one.done() for one in others)  # what was read before they came is nothing to them
    store.reads[1].set_result(None)
    answers = await asyncio.gather(*others)
    assert all(cast(Any, one) == {f"s{number}" for number in range(1, 100)} for one in answers)


async def test_one_read_is_for_so_many_at_the_most(slow: tuple[SlowStore, Arrivals], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MAX_AT_ONCE", 10)
    store, at = slow
    waiting = come(at, *range(25))
    sizes = []
    for turn in range(3):
        await turns()
        store.reads[turn].set_result(None)
        await turns()
        sizes.append(sum(one.done() for one in waiting))
    assert sizes == [10, 20, 25]


async def test_a_read_that_fails_is_told_to_its_own_and_the_next_is_made(slow: tuple[SlowStore, Arrivals]) -> None:
    store, at = slow
    (first,) = come(at, 0)
    await turns()
    (second,) = come(at, 1)
    await turns()
    store.reads[0].set_exception(StoreUnreachable("away"))
    with pytest.raises(StoreUnreachable):
        await first
    await turns()
    store.reads[1].set_result(None)
    assert cast(Any, await second) == {"s1"}


async def test_one_that_gives_up_leaves_the_others_their_answer(slow: tuple[SlowStore, Arrivals]) -> None:
    store, at = slow
    first, second = come(at, 0, 1)
    await turns()
    first.cancel()
    await turns()
    store.reads[0].set_result(None)
    assert "s1" in cast(Any, await second)


async def test_nobody_waits_for_ever_when_it_is_over(slow: tuple[SlowStore, Arrivals]) -> None:
    _, at = slow
    (first,) = come(at, 0)
    await turns()
    (second,) = come(at, 1)
    await turns()
    await at.aclose()
    for one in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(one, 5)


# ---- with a real store


async def several(controller: Running, count: int) -> tuple[str, list[Session]]:
    """Return the id of a key, and sessions of it that have attached before."""
    key, key_file = await controller.add_key(await controller.add_account())
    made = [await controller.log_in(key_file) for _ in range(count)]
    for one in made:
        controller.peers.settled(one.id)
    return key, made


async def test_many_that_come_back_at_once_cost_few_reads(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    _, who = await several(live, 12)
    taken: list[int] = []
    take: Callable[..., Snapshot] = snapshot.take

    def counted(tx: Transaction, principals: Any, connectors: Any = ()) -> Snapshot:
        taken.append(len(principals))
        return take(tx, principals, connectors)

    monkeypatch.setattr(snapshot, "take", counted)

    async def come_back(one: Session) -> None:
        async with live.attached(one) as channel:
            await channel.wait_for(control.ClientConfiguration)

    await asyncio.gather(*map(come_back, who))
    assert sum(taken) >= len(who)
    assert len(taken) < len(who)


async def test_dead_keys_and_ended_sessions_are_refused_among_live_ones(live: Running) -> None:
    _, good = await several(live, 3)
    dead_key, dead = await several_of_another(live)
    await live.revoke_key(dead_key)
    ended = good.pop()
    await live.write(lambda tx: sessions.end(tx, SessionId(ended.id), sessions.LOGOUT, "", cut=True))

    async def refused(one: Session) -> str:
        async with live.attached(one) as channel:
            return (await channel.take(control.Refused)).code

    async def configured(one: Session) -> str:
        async with live.attached(one) as channel:
            return (await channel.take(control.ClientConfiguration)).session

    codes = await asyncio.gather(refused(dead), refused(ended), *map(configured, good))
    assert codes == [ServiceKeyRevoked.code, SessionOver.code, *(one.id for one in good)]


async def several_of_another(controller: Running) -> tuple[str, Session]:
    key, key_file = await controller.add_key(await controller.add_account("another"))
    session = await controller.log_in(key_file)
    controller.peers.settled(session.id)
    return key, session


async def test_a_revocation_while_it_is_read_for_reaches_one_that_is_just_coming_back(
    live: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read saw the key alive; the commit comes before the answer is sent. No later change happens that would mend it."""
    key, (session,) = await several(live, 1)
    read = live.store.read
    revoked = asyncio.Event()

    async def late(query: Callable[[Transaction], Any]) -> Any:
        found = await read(query)
        if isinstance(found, Snapshot) and session.id in found.live_sessions and not revoked.is_set():
            revoked.set()
            await live.revoke_key(key)
        return found

    monkeypatch.setattr(live.store, "read", late)
    async with live.attached(session) as channel:
        while not isinstance(message := control.decode_to_client(await channel.text()), control.SessionEnded | control.Refused):
            assert isinstance(message, control.ClientConfiguration)
    assert revoked.is_set()
    assert message.code == ServiceKeyRevoked.code


# ---- what else a herd meets


async def test_clients_are_spread_after_a_restart_before_they_are_back(live: Running) -> None:
    await logged_in(live)
    assert await live.read(sessions.count_live) == 1
    live.peers.expected = 4_000
    assert live.peers.spread_ms() == 10_000


async def test_no_tickets_for_resumption_are_given(live: Running) -> None:
    def shake() -> tuple[bool, bool]:
        listen = live.config.listen
        host, port = listen.host, listen.port
        with (
            socket.create_connection((host, port), timeout=10) as raw,
            ssl.create_default_context(cadata=live.authority).wrap_socket(raw, server_hostname=host) as made,
        ):
            made.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            made.recv(4096)  # tickets of TLS 1.3 come with what is read
            return made.session is not None and made.session.has_ticket, made.session_reused or False

    assert await asyncio.to_thread(shake) == (False, False)


@pytest.fixture
def own_garbage() -> Iterator[None]:
    before = gc.get_threshold()
    gc.enable()  # a command that was tried in this process may have switched it off
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("own_garbage")
def test_circles_are_still_collected() -> None:
    collector.settle()
    assert gc.get_threshold() == collector.THRESHOLDS
    assert gc.get_freeze_count() > 0

    gone = 0

    class Circle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            nonlocal gone
            gone += 1

    for _ in range(2 * collector.THRESHOLDS[0]):
        Circle()
    assert gone > 0


async def test_few_connections_are_accepted_in_one_turn_however_many_wait(live: Running) -> None:
    """What is attached is served between turns: the handshakes of a herd do not come before its heartbeats, renewals and cuts."""
    listen = live.config.listen
    waiting = [socket.create_connection((listen.host, listen.port)) for _ in range(10 * web.ACCEPT_ROUNDS)]
    try:
        seen = [len(live.seats)]
        while seen[-1] < len(waiting):
            await asyncio.sleep(0)
            seen.append(len(live.seats))
            assert len(seen) < 100_000
    finally:
        for one in waiting:
            one.close()
    assert max(later - earlier for earlier, later in pairwise(seen)) <= web.ACCEPT_ROUNDS


async def test_renewals_and_cuts_are_served_while_others_come_back(live: Running) -> None:
    _, who = await several(live, 10)
    renewing, *herd = who
    over = asyncio.Event()

    async def come_back(one: Session) -> None:
        while not over.is_set():
            async with live.attached(one) as channel:
                await channel.wait_for(control.ClientConfiguration)

    async with live.attached(renewing) as channel:
        first = await channel.wait_for(control.ClientConfiguration)
        coming = [asyncio.create_task(come_back(one)) for one in herd]
        try:
            await channel.send(control.Renew())
            renewed = await channel.wait_for(control.ClientConfiguration)
            await live.write(lambda tx: sessions.end(tx, SessionId(renewing.id), sessions.LOGOUT, "", cut=True))
            assert (await channel.wait_for(control.SessionEnded)).code == SessionOver.code
        finally:
            over.set()
            await asyncio.gather(*coming)
    assert renewed.valid_until_ms >= first.valid_until_ms
