"""Names with a real connector: their other records, and that one which is away is told at once, and hastily never."""

from __future__ import annotations

import asyncio
import time

import pytest

from klinket.client import names as client_names
from klinket.client.client import Client
from klinket.client.name_questions import MAX_QUESTIONS
from klinket.connector import name_questions
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import FlowFailure
from klinket.wire.link_control import NameAnswer
from tests.eventually import eventually
from tests.unit.whole import Whole

#: The reverse name of the resource 127.0.0.1.
NAME = "1.0.0.127.in-addr.arpa"
PTR, MX = 12, 15


@pytest.fixture
async def client(whole: Whole) -> Client:
    return await whole.client()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """A connector whose resolvers answer when this is set."""
    go = asyncio.Event()

    async def ask(*_: object) -> None:
        await go.wait()

    monkeypatch.setattr(name_questions.NameQuestions, "_ask_resolvers", ask)
    return go


async def test_a_connector_is_asked_on_the_link_there_is(client: Client, silent: asyncio.Event) -> None:
    silent.set()
    answer = await client.names.records(NAME, PTR)
    assert (answer.code, answer.text) == (2, "no resolver of the connector has answered")
    assert (await client.names.records("127.0.0.1", MX)).code == 0, "an address has no records"


async def test_a_name_that_is_not_granted_is_not_even_asked(client: Client) -> None:
    with pytest.raises(FlowRefused) as refused:
        await client.names.records("other.internal", MX)
    assert refused.value.failure is FlowFailure.NOT_GRANTED


async def test_one_question_too_many_fails_at_once_and_all_others_end_with_the_link(
    whole: Whole, client: Client, silent: asyncio.Event
) -> None:
    asking = [asyncio.ensure_future(client.names.records(NAME, PTR)) for _ in range(MAX_QUESTIONS)]
    (link,) = client._links.values()
    await eventually(lambda: len(link._names._waiting) == MAX_QUESTIONS)
    with pytest.raises(FlowRefused) as refused:
        await client.names.records(NAME, PTR)
    assert refused.value.failure is FlowFailure.THROTTLED
    assert link._control is not None
    link._control.abort()
    for one in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(one, FlowRefused)


async def test_a_connector_that_does_not_answer_is_not_waited_for_longer_than_programs_wait(
    client: Client, silent: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_names, "ANSWER_SECONDS", 0.1)
    with pytest.raises(FlowRefused, match="did not answer within"):
        await client.names.records(NAME, PTR)
    silent.set()
    await asyncio.sleep(0.05)  # the late answer has come, and is dropped
    assert (await client.names.records(NAME, PTR)).code == 2


async def test_a_connector_of_an_earlier_version_is_not_asked(client: Client) -> None:
    (link,) = client._links.values()
    link._names.features = frozenset()
    with pytest.raises(FlowRefused, match="cannot be asked"):
        await client.names.records(NAME, PTR)
    assert link.usable, "it would have ended the pipe"


async def test_an_answer_nobody_has_asked_for_is_dropped(client: Client) -> None:
    (link,) = client._links.values()
    link._names.answered(NameAnswer(id=77, code=0))
    assert client.names.is_served("127.0.0.1")


async def test_with_a_link_a_name_is_served_and_without_a_connector_it_fails_at_once(whole: Whole, client: Client) -> None:
    names = client.names
    assert names.is_served("127.0.0.1")
    await names.until_served("127.0.0.1")
    await whole.end_connector()
    await eventually(lambda: not names.is_served("127.0.0.1") and not client.core.configuration.connectors[0].relays)
    with pytest.raises(FlowRefused):  # the first question may wait whether the connector is about to come
        await names.until_served("127.0.0.1")
    begun = time.monotonic()
    for _ in range(20):
        with pytest.raises(FlowRefused) as refused:
            await names.until_served("127.0.0.1")
        assert refused.value.failure is FlowFailure.NO_CONNECTOR
    assert time.monotonic() - begun < 20 * client_names.LINK_WAIT_SECONDS / 2, "it does not wait each time"
    await whole.start_connector()
    async with asyncio.timeout(30):
        while True:
            try:
                await names.until_served("127.0.0.1")
                break
            except FlowRefused:
                await asyncio.sleep(0.05)
    await eventually(lambda: names.is_served("127.0.0.1"))


async def test_a_link_that_is_being_made_is_waited_for_and_then_the_connect_decides(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_names, "LINK_WAIT_SECONDS", 0.05)
    names = client.names
    started = asyncio.Event()

    async def never(_: object) -> object:
        started.set()
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(names, "_link", never)
    for id in list(client._links):
        await client._links.pop(id).aclose()
    await asyncio.wait_for(names.until_served("127.0.0.1"), 10)
    assert started.is_set()
    assert not names.is_served("127.0.0.1")


async def test_a_connector_that_failed_just_now_is_tried_again_and_not_waited_for(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = client.names
    for id in list(client._links):
        await client._links.pop(id).aclose()
        client.core.choice.failed(id, client.now())
    with pytest.raises(FlowRefused, match="did not answer just now"):
        await names.until_served("127.0.0.1")
    await eventually(lambda: names.is_served("127.0.0.1"))
    await names.until_served("127.0.0.1")
