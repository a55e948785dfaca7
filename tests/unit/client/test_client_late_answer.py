"""What is learnt of a connector from the answer to a fast connect, on real pipes: the next connect goes by it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from klinket.client import flow as client_flow
from klinket.client.flow import ClientStream
from klinket.client.late_answer import LateAnswer
from klinket.client.link import ConnectorLink
from klinket.domain.connector_choice import ConnectorChoice
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import FlowFailure
from klinket.net.tasks import TaskSet
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure, OpenAnswer
from tests.eventually import eventually
from tests.unit.client.conftest import granted
from tests.unit.client.test_client_links import a_link
from tests.unit.net.conftest import pipe_ends, tcp_pair

NOW = 1000.0
HOST = "db.internal"
RESOURCE = granted(1, HOST)


class FastConnect:
    """A fast connect to the connector that comes first of two. `is_silent`: it does not say that it is there."""

    def __init__(self) -> None:
        self.choice = ConnectorChoice()
        self.first, self.second = self.order()
        self.is_silent = False
        self.asked: list[int] = []
        self.told: list[FlowRefused] = []
        self.tasks = TaskSet("test")
        self.ends = pipe_ends()
        self.program, local = tcp_pair()
        link = a_link(self.first)
        answer = LateAnswer(link, RESOURCE, HOST, self.choice, lambda: NOW, self._silent, self.tasks)
        self.stream = ClientStream(RESOURCE, self.ends.client, link, lambda _: None, self.told.append, answer)
        self.carrying = asyncio.ensure_future(self._carry(local))

    async def _carry(self, local: socket.socket) -> None:
        await self.stream.carry(local)

    async def _silent(self, link: ConnectorLink) -> bool:
        self.asked.append(link.connector.id)
        return self.is_silent

    def order(self, host: str = HOST) -> list[int]:
        return self.choice.order("s", RESOURCE.id, host, [1, 2], NOW)

    async def refuse(self, failure: FlowFailure) -> None:
        await self.ends.connector.send(FrameType.FAIL, Failure(failure, "no").encode())
        await self.carrying
        assert [one.failure for one in self.told] == [failure]


@pytest.fixture
async def connect() -> AsyncIterator[FastConnect]:
    made = FastConnect()
    yield made
    made.program.close()
    made.carrying.cancel()
    await asyncio.gather(made.carrying, return_exceptions=True)
    made.ends.connector.abort()
    await made.tasks.aclose()


@pytest.mark.parametrize("failure", [FlowFailure.UNREACHABLE, FlowFailure.TIMED_OUT, FlowFailure.NAME_NOT_FOUND])
async def test_where_the_resource_was_not_reached_the_next_connect_asks_another(
    connect: FastConnect, failure: FlowFailure
) -> None:
    await connect.refuse(failure)
    assert connect.order() == [connect.second, connect.first]
    assert connect.order("other.internal") == ConnectorChoice().order("s", RESOURCE.id, "other.internal", [1, 2], NOW)
    assert not connect.choice.is_failing(connect.first, NOW)
    assert connect.asked == []


@pytest.mark.parametrize("failure", [FlowFailure.DRAINING, FlowFailure.NO_CONNECTOR])
async def test_a_connector_that_takes_no_flows_comes_last(connect: FastConnect, failure: FlowFailure) -> None:
    await connect.refuse(failure)
    assert connect.choice.is_failing(connect.first, NOW)


@pytest.mark.parametrize("failure", [FlowFailure.REFUSED, FlowFailure.NOT_GRANTED, FlowFailure.CUT, FlowFailure.RESET])
async def test_what_the_resource_or_the_policy_says_blames_no_connector(connect: FastConnect, failure: FlowFailure) -> None:
    await connect.refuse(failure)
    assert connect.order() == [connect.first, connect.second]


async def test_a_program_that_gives_up_blames_no_connector(connect: FastConnect) -> None:
    client_flow.reset(connect.program)
    await connect.carrying
    assert connect.order() == [connect.first, connect.second]


async def test_what_was_seen_before_is_forgotten_as_soon_as_it_is_opened(connect: FastConnect) -> None:
    connect.choice.failed(connect.first, NOW)
    connect.choice.missed(connect.first, RESOURCE.id, HOST, NOW)
    await connect.ends.connector.send(FrameType.OPENED, OpenAnswer("10.0.0.1").encode())
    await eventually(lambda: connect.order() == [connect.first, connect.second])
    assert not connect.carrying.done()


async def test_a_failure_after_it_was_opened_says_nothing_of_reaching(connect: FastConnect) -> None:
    await connect.ends.connector.send(FrameType.OPENED, OpenAnswer("10.0.0.1").encode())
    await connect.ends.connector.send(FrameType.FAIL, Failure(FlowFailure.TIMED_OUT, "late").encode())
    await connect.carrying
    assert connect.told == []
    assert connect.order() == [connect.first, connect.second]


@pytest.mark.parametrize("is_silent", [True, False])
async def test_where_no_answer_comes_the_connector_is_asked_whether_it_is_there(
    monkeypatch: pytest.MonkeyPatch, is_silent: bool
) -> None:
    monkeypatch.setattr(client_flow, "OPEN_SECONDS", 0.05)
    connect = FastConnect()
    connect.is_silent = is_silent
    await connect.carrying
    await eventually(lambda: connect.order() == [connect.second, connect.first])
    assert connect.asked == [connect.first]
    assert connect.choice.is_failing(connect.first, NOW) == is_silent
    assert [one.failure for one in connect.told] == [FlowFailure.TIMED_OUT]
    connect.program.close()
    connect.ends.connector.abort()
    await connect.tasks.aclose()
