"""Opening a flow at whichever connector serves it: who is asked, in which order, what is told, and what is remembered."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from klinket.client import attempts
from klinket.client.attempts import Attempts, begin_first
from klinket.client.core import Route
from klinket.client.link import ConnectorLink, LinkLost
from klinket.domain.connector_choice import UNREACHED_SECONDS, ConnectorChoice
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.resource import Resource
from klinket.net.pipe import SealedPipe
from klinket.wire.inventory import ConnectorEntry
from klinket.wire.pipe_messages import OpenAnswer
from tests.unit.client.conftest import granted

NOW = 1000.0
DESTINATION = Destination("db.internal", 5432, TransportProtocol.TCP)
OPENED, HANGS = "opened", "hangs"


class Pipe:
    def __init__(self, link: Link) -> None:
        self.link = link
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class Link:
    """A connector's link that answers as scripted: OPENED, HANGS, a FlowFailure, or LinkLost for a broken one."""

    def __init__(self, id: int, *answers: object, there: bool = True, after: float = 0.0) -> None:
        self.connector = ConnectorEntry(id=id, name=f"c{id}", remote_network=1, relays=[1])
        self.answers = list(answers)
        self.there = there
        self.after = after
        self.usable = True
        self.pipes: list[Pipe] = []

    async def pipe(self) -> Pipe:
        self.pipes.append(Pipe(self))
        return self.pipes[-1]


class World:
    """Clients' links by connector, and what was done with them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *links: Link) -> None:
        self.links = {link.connector.id: link for link in links}
        self.routes = [Route(link.connector, ()) for link in links]
        self.choice = ConnectorChoice()
        self.lost: list[int] = []
        self.resource = granted(1, "db.internal")
        monkeypatch.setattr(attempts, "ask", self._ask)
        monkeypatch.setattr(attempts, "begin", self._begin)
        monkeypatch.setattr(attempts, "HEDGE_SECONDS", 0.02)
        monkeypatch.setattr(attempts, "SLOW_SECONDS", 0.1)

    async def _ask(self, pipe: Pipe, _: Destination, __: Resource) -> tuple[Pipe, OpenAnswer]:
        link = pipe.link
        answer = link.answers.pop(0) if len(link.answers) > 1 else link.answers[0]
        await asyncio.sleep(60 if answer is HANGS else link.after)
        if answer is LinkLost:
            raise LinkLost("broken")
        if isinstance(answer, FlowFailure):
            raise FlowRefused(answer, f"c{link.connector.id} says {answer.value}")
        return pipe, OpenAnswer("10.0.0.1")

    async def _begin(self, pipe: Pipe, destination: Destination, resource: Resource) -> Pipe:
        return (await self._ask(pipe, destination, resource))[0]

    async def _lost(self, link: Any) -> None:
        if link is not None:
            self.lost.append(link.connector.id)

    async def _silent(self, link: Any) -> bool:
        if not link.there:
            link.usable = False
        return not link.there

    async def _link_of(self, route: Route) -> ConnectorLink:
        return cast(ConnectorLink, self.links[route.connector.id])

    async def open(self) -> int:
        """Return the connector at which the flow was opened."""
        made = Attempts(
            self.routes, DESTINATION, self.resource, self._link_of, self._lost, self._silent, self.choice, lambda: NOW
        )
        async with asyncio.timeout(10):
            pipe, link = await made.open()
        assert cast(Any, pipe).link is link
        assert not cast(SealedPipe, pipe).aborted  # type: ignore[attr-defined]
        return int(link.connector.id)

    async def begin(self) -> int:
        """Return the connector to which OPEN was sent, and whose answer is not waited for."""
        async with asyncio.timeout(10):
            pipe, link = await begin_first(
                self.routes, DESTINATION, self.resource, self._link_of, self._lost, self.choice, lambda: NOW
            )
        assert cast(Any, pipe).link is link
        return int(link.connector.id)

    async def refusal(self) -> FlowFailure:
        with pytest.raises(FlowRefused) as caught:
            await self.open()
        failure = caught.value.failure
        assert isinstance(failure, FlowFailure)
        return failure

    def order(self) -> list[int]:
        return self.choice.order("s", self.resource.id, DESTINATION.host, self.links, NOW)


async def test_the_first_that_accepts_is_the_only_one_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Link(1, OPENED), Link(2, OPENED))
    assert await world.open() == 1
    assert world.links[2].pipes == []


@pytest.mark.parametrize("failure", [FlowFailure.UNREACHABLE, FlowFailure.TIMED_OUT, FlowFailure.NAME_NOT_FOUND])
async def test_where_one_does_not_reach_the_resource_the_next_is_asked_and_remembered(
    monkeypatch: pytest.MonkeyPatch, failure: FlowFailure
) -> None:
    world = World(monkeypatch, Link(1, failure), Link(2, OPENED))
    assert await world.open() == 2
    assert world.order() == [2, 1]
    assert world.lost == [], "its link is as good as before"


@pytest.mark.parametrize(
    "failure",
    [FlowFailure.REFUSED, FlowFailure.NOT_GRANTED, FlowFailure.THROTTLED, FlowFailure.ADDRESS_FORBIDDEN, FlowFailure.CUT],
)
async def test_what_the_resource_or_the_policy_says_is_final(monkeypatch: pytest.MonkeyPatch, failure: FlowFailure) -> None:
    world = World(monkeypatch, Link(1, failure), Link(2, OPENED))
    assert await world.refusal() is failure
    assert world.links[2].pipes == []


async def test_when_nobody_reaches_it_the_most_telling_answer_is_told_and_nobody_is_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(
        monkeypatch, Link(1, FlowFailure.DRAINING), Link(2, FlowFailure.NAME_NOT_FOUND), Link(3, FlowFailure.UNREACHABLE)
    )
    before = ConnectorChoice().order("s", world.resource.id, DESTINATION.host, [2, 3], NOW)
    assert await world.refusal() is FlowFailure.UNREACHABLE
    assert [id for id in world.order() if id != 1] == before


async def test_a_pipe_that_died_is_replaced_once_before_the_next_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Link(1, LinkLost, OPENED), Link(2, OPENED))
    assert await world.open() == 1
    world = World(monkeypatch, Link(1, LinkLost), Link(2, OPENED))
    assert await world.open() == 2
    assert len(world.links[1].pipes) == 2
    assert world.order()[-1] == 1


async def test_a_silent_connector_is_passed_over_and_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Link(1, HANGS, there=False), Link(2, OPENED))
    assert await world.open() == 2
    assert world.order()[-1] == 1


async def test_where_there_is_one_connector_only_it_is_asked_again_over_a_new_link(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Link(1, HANGS, OPENED, there=False))
    assert await world.open() == 1
    assert len(world.links[1].pipes) == 2


async def test_a_connector_that_dials_long_gets_company_and_loses_the_resource_when_it_is_overtaken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, Link(1, HANGS), Link(2, OPENED))
    begun = asyncio.get_running_loop().time()
    assert await world.open() == 2
    assert asyncio.get_running_loop().time() - begun >= attempts.SLOW_SECONDS * 0.9
    assert world.order()[-1] == 1
    assert world.lost == []


async def test_a_slow_answer_of_the_only_connector_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Link(1, OPENED, after=0.3))
    assert await world.open() == 1
    assert len(world.links[1].pipes) == 1


async def test_a_refusal_by_the_resource_ends_the_wait_for_a_slower_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Link(1, HANGS), Link(2, FlowFailure.REFUSED))
    assert await world.refusal() is FlowFailure.REFUSED


# ---- fast connects


async def test_a_fast_connect_goes_to_the_first_that_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Link(1, OPENED), Link(2, OPENED))
    assert await world.begin() == 1
    assert world.links[2].pipes == []
    assert world.lost == []


async def test_a_fast_connect_tries_a_dead_pipe_once_more_and_then_the_next_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Link(1, LinkLost, OPENED), Link(2, OPENED))
    assert await world.begin() == 1
    assert world.lost == [1]
    assert not world.choice.is_failing(1, NOW)
    world = World(monkeypatch, Link(1, LinkLost), Link(2, OPENED))
    assert await world.begin() == 2
    assert len(world.links[1].pipes) == 2
    assert world.lost == [1, 1]
    assert world.choice.is_failing(1, NOW)
    assert not world.choice.is_failing(2, NOW)


async def test_a_fast_connect_that_can_ask_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Link(1, LinkLost), Link(2, LinkLost))
    with pytest.raises(LinkLost, match="broken"):
        await world.begin()
    world.routes = []
    with pytest.raises(FlowRefused) as caught:
        await world.begin()
    assert caught.value.failure is FlowFailure.NO_CONNECTOR


async def test_one_fast_connect_tries_a_connector_again_while_the_others_stay_away(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Link(1, OPENED), Link(2, OPENED))
    first, second = world.order()
    world.routes = [Route(world.links[first].connector, ())]
    world.choice.missed(first, world.resource.id, DESTINATION.host, NOW - UNREACHED_SECONDS)
    assert world.order() == [first, second], "it is time to try it again"
    await world.begin()
    assert world.order() == [second, first]
