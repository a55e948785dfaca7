"""At which relays a connector waits, and how busy it says it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from examples.deployment import free_port
from klinket.connector import relay_choice
from klinket.connector.load import WINDOW_SECONDS, ProcessLoad
from klinket.connector.relay_choice import RelayChoice
from klinket.domain.nearest_relays import KEPT_RELAYS
from klinket.wire.inventory import RelayEntry


def entry(id: int, port: int) -> RelayEntry:
    return RelayEntry(id=id, address=f"127.0.0.1:{port}", certificate_sha256="0" * 64)


@pytest.fixture
def listening() -> Iterator[dict[int, RelayEntry]]:
    """Three relays that accept connections."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    yield {id: entry(id, listener.getsockname()[1]) for id, listener in enumerate(listeners, 1)}
    for listener in listeners:
        listener.close()


def test_two_relays_are_both_used_and_of_more_two(listening: dict[int, RelayEntry]) -> None:
    choice = RelayChoice()
    assert set(choice.best({id: listening[id] for id in (1, 2)})) == {1, 2}
    assert list(choice.best(listening)) == [1, 2]


async def test_one_that_does_not_answer_is_left_for_another(listening: dict[int, RelayEntry]) -> None:
    choice = RelayChoice()
    relays = {**listening, 1: entry(1, free_port())}
    await choice.measure(relays.values())
    assert set(choice.best(relays)) == {2, 3}
    await choice.measure(listening.values())
    assert 1 in choice._nearest._seconds
    assert len(choice.best(listening)) == KEPT_RELAYS


async def test_one_that_swallows_everything_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> socket.socket:
        raise TimeoutError

    monkeypatch.setattr(relay_choice.sockets, "connect", never)
    choice = RelayChoice()
    await choice.measure([entry(1, 1)])
    assert choice._nearest._away == {1}


def test_the_load_is_the_share_of_a_processor_over_a_while() -> None:
    clock = [0.0, 0.0]
    load = ProcessLoad(lambda: clock[0], lambda: clock[1])
    assert load.percent() == 0
    clock[:] = WINDOW_SECONDS, WINDOW_SECONDS * 0.4
    assert load.percent() == 40
    clock[0] += WINDOW_SECONDS / 2
    assert load.percent() == 40, "not measured anew within the window"
    clock[:] = clock[0] + WINDOW_SECONDS, clock[1] + 5 * WINDOW_SECONDS
    assert load.percent() == 100, "several threads are no more than one busy processor"
