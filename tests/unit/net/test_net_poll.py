"""Watches of sockets: called while wanted and never after, also where a number is another socket's by then."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator

import pytest
import uvloop

from klinket.net import poll as net_poll
from klinket.net import sockets
from klinket.net.poll import Poll, poll
from tests.unit.net.conftest import tcp_pair


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, two = tcp_pair()
    yield one, two
    for sock in (one, two):
        net_poll.forget(sock)
        sock.close()


async def turns() -> None:
    await asyncio.sleep(0.05)


Pair = tuple[socket.socket, socket.socket]


async def test_a_reader_is_called_while_there_is_something_and_not_after_it_was_removed(pair: Pair) -> None:
    one, two = pair
    read: list[bytes] = []
    poll().add_reader(one, lambda: read.append(one.recv(1)))
    two.send(b"ab")
    await turns()
    assert read == [b"a", b"b"]
    poll().remove_reader(one)
    two.send(b"c")
    await turns()
    assert read == [b"a", b"b"]
    poll().add_reader(one, lambda: read.append(one.recv(1)))
    await turns()
    assert read == [b"a", b"b", b"c"]


async def test_a_writer_is_called_until_it_is_removed_while_the_reader_stays(pair: Pair) -> None:
    one, two = pair
    calls: list[str] = []

    def write() -> None:
        calls.append("w")
        poll().remove_writer(one)

    poll().add_reader(one, lambda: calls.append(one.recv(1).decode()))
    poll().add_writer(one, write)
    await turns()
    assert calls == ["w"]
    two.send(b"r")
    await turns()
    assert calls == ["w", "r"]


async def test_what_nobody_wants_is_heard_once_and_then_not_asked_for(pair: Pair) -> None:
    one, two = pair
    poll().add_reader(one, lambda: None)
    poll().remove_reader(one)
    two.close()
    before = poll()._round  # type: ignore[attr-defined]
    await turns()
    assert poll()._round - before <= 2  # type: ignore[attr-defined]
    assert poll()._watches[one.fileno()] is None  # type: ignore[attr-defined]


async def test_the_end_of_the_peer_calls_the_reader(pair: Pair) -> None:
    one, two = pair
    seen: list[bytes] = []

    def read() -> None:
        seen.append(one.recv(10))
        poll().remove_reader(one)

    poll().add_reader(one, read)
    two.close()
    await turns()
    assert seen == [b""]


async def test_a_socket_with_the_number_of_one_that_was_closed_unforgotten_is_watched() -> None:
    template, other = tcp_pair()
    one, two = tcp_pair()
    poll().add_reader(one, lambda: pytest.fail("the closed socket was heard of"))
    number = one.fileno()
    one.close()
    new = socket.socket(fileno=os.dup2(template.fileno(), number))
    new.setblocking(False)
    heard: list[bytes] = []
    poll().add_reader(new, lambda: heard.append(new.recv(1)))
    other.send(b"x")
    await turns()
    assert heard == [b"x"]
    poll().forget(new)
    for sock in (template, other, new, two):
        sock.close()


async def test_what_a_callback_forgets_is_not_called_in_the_same_turn() -> None:
    pairs = [tcp_pair(), tcp_pair()]
    called: list[int] = []

    def only(index: int) -> None:
        called.append(index)
        for sock, _ in pairs:
            poll().forget(sock)

    for index, (sock, peer) in enumerate(pairs):
        poll().add_reader(sock, only, index)
        peer.send(b"x")
    await turns()
    assert len(called) == 1
    for ends in pairs:
        for sock in ends:
            sock.close()


async def test_a_callback_that_fails_is_told_and_others_go_on(pair: Pair) -> None:
    one, two = pair
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

    def fail() -> None:
        one.recv(1)
        raise ValueError("a defect")

    poll().add_reader(one, fail)
    two.send(b"x")
    await turns()
    two.send(b"y")
    await turns()
    assert [str(one) for one in told] == ["a defect", "a defect"]


async def test_each_loop_has_watches_of_its_own() -> None:
    others: list[Poll] = []

    async def note() -> None:
        others.append(poll())

    thread = threading.Thread(target=lambda: asyncio.run(note()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert others[0] is not poll()
    assert poll() is poll()


async def connect(sock: socket.socket, address: object) -> None:
    if not sockets.begin_connect(sock, address):
        await sockets.connected(sock)


async def test_connecting_says_what_the_other_side_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.socket() as sock:
            sock.setblocking(False)
            await connect(sock, address)
            assert sock.getpeername() == address
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            await connect(sock, address)


async def test_much_is_sent_whole_under_back_pressure(pair: Pair) -> None:
    one, two = pair
    data = bytes(range(256)) * 65_536
    sending = asyncio.ensure_future(sockets.send_all(one, data))
    assert await sockets.receive_exactly(two, len(data)) == data
    await sending
