"""Every caller at every door of tests/authorization.py, from which docs/reference/authorization.md is made.

A caller is refused where the answer says that it is not believed or not allowed, and nothing has changed then; it is let in where
the answer is any other, save that the controller has failed or asks it to wait.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from websockets.exceptions import ConnectionClosed

from klinket.controller.app.console_sessions import PROOF_MS
from klinket.controller.console.gate import SIGN_IN_PATH
from klinket.controller.graphql.extension.load import load_extension
from klinket.controller.graphql.schema import load_schema
from klinket.controller.oidc_settings import OidcSettings, parse_rules
from klinket.domain.errors import ControllerUnreachable
from klinket.net.certificate_request import certificate_request
from klinket.wire import control
from klinket.wire.paths import DRY_RUN, EXTENSION_PATH, GRAPHQL_PATH, LOGOUT_PATH, REFLECT_PATH, REVOKE_PATH
from klinket.wire.relay import RelayReport, encode
from tests.authorization import (
    CALLERS,
    CHANNEL_DOORS,
    CHANNEL_PATHS,
    FIELD_DOORS,
    PAGE_DOORS,
    PATH_DOORS,
    SIGN_IN_DOORS,
    Door,
    routes_of,
)
from tests.unit.controller.authorization_callers import Answer, Callers, filled
from tests.unit.controller.graphql.documents import root_fields
from tests.unit.controller.running import Channel, Running

pytestmark = pytest.mark.sqlite_only
DOCUMENTS = {GRAPHQL_PATH: root_fields(load_schema()), EXTENSION_PATH: root_fields(load_extension())}
#: Statuses of a refusal: not believed, not allowed, a connector's tokens that are dead.
REFUSED = frozenset({401, 403, 410})
#: Of the console: who is not signed in is led to the sign-in, and 401 tells that a password or code in a form is wrong.
REFUSED_BY_CONSOLE = frozenset({403})
#: These answer everybody the same: who guesses learns nothing. Whether something ended says who was let in.
SILENT = {LOGOUT_PATH, REVOKE_PATH}


def each(*tables: list[Door]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("door", [door for table in tables for door in table], ids=str)


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    # An identity provider that nobody needs to reach: its pages are there.
    rules = parse_rules(["example.com"], [], None)
    oidc = OidcSettings(issuer="https://provider.example", client_id="klinket", rules=rules)
    running = Running(tmp_path_factory.mktemp("controller"), oidc=oidc)
    callers = Callers(running)

    async def prepare() -> None:
        await running.open()
        await callers.arrive()

    asyncio.run(prepare())
    yield callers
    running.store.close()


async def let_in(running: Running, door: Door, ask: Callable[[str], Awaitable[bool]]) -> set[str]:
    """Return who is let in. Who is to be refused asks first, and changes nothing."""
    before = await running.read(lambda tx: tx.head())
    others = {caller for caller in CALLERS if caller not in door.who and await ask(caller)}
    assert await running.read(lambda tx: tx.head()) == before
    return others | {caller for caller in CALLERS if caller in door.who and await ask(caller)}


def is_in(answer: Answer, refused: frozenset[int] = REFUSED) -> bool:
    provider_is_away = answer.status == 503 and "identity provider" in answer.text  # told to those who are let in
    assert answer.status < 500 or provider_is_away, answer
    assert answer.status != 429, answer
    return answer.status not in refused and answer.location.partition("?")[0] != SIGN_IN_PATH


# ---- the table is whole


async def test_every_path_has_a_line_and_every_line_a_path(callers: Callers) -> None:
    lines = [*map(str, [*PATH_DOORS, *SIGN_IN_DOORS, *PAGE_DOORS]), *CHANNEL_PATHS.values()]
    assert sorted(lines) == sorted(routes_of(callers.running.app))


@pytest.mark.parametrize("path", FIELD_DOORS)
def test_every_field_has_a_line_and_every_line_a_field(path: str) -> None:
    assert sorted(door.name for door in FIELD_DOORS[path]) == sorted(DOCUMENTS[path])


def test_every_message_has_a_line_and_every_line_a_message() -> None:
    tags = {str(kind.__struct_config__.tag) for kind in get_args(control.ToController)}
    assert {door.name for door in CHANNEL_DOORS if door.kind == "live"} == tags
    assert {door.name for door in CHANNEL_DOORS if door.kind == "relay"} == {"attach", RelayReport.__struct_config__.tag}


# ---- who is let in


@each(*FIELD_DOORS.values())
async def test_a_field_answers_who_its_line_names(callers: Callers, door: Door) -> None:
    document = DOCUMENTS[door.kind][door.name]

    async def ask(path: str, caller: str) -> bool:
        answer = await callers.ask(caller, "POST", path, json={"query": document})
        assert answer.status in (200, 401, 403), answer
        assert (answer.status == 200) != ("errors" in json.loads(answer.text)), answer
        return answer.status == 200

    for path in (door.kind, *([door.kind + DRY_RUN] if document.startswith("mutation") else [])):
        assert await let_in(callers.running, door, partial(ask, path)) == door.who, path


@each([door for door in PATH_DOORS if door.name != REFLECT_PATH])
async def test_a_path_is_open_to_who_its_line_names(callers: Callers, door: Door) -> None:
    async def ask(caller: str) -> bool:
        sent = {"json": await callers.body(caller, door.name)} if door.kind == "POST" else {}
        before = await callers.running.read(lambda tx: tx.head())
        answer = await callers.ask(caller, door.kind, filled(door.name), **sent)
        if door.name in SILENT:
            assert answer.status == 204
            return await callers.running.read(lambda tx: tx.head()) != before
        return is_in(answer)

    await callers.sign_in()
    assert await let_in(callers.running, door, ask) == door.who


async def test_metrics_are_open_to_this_machine(callers: Callers) -> None:
    for caller in CALLERS:
        assert (await callers.ask(caller, "GET", "/metrics", source="127.0.0.1")).status == 200


@each([door for door in SIGN_IN_DOORS if door.name != "/console/sign-out"])
async def test_a_page_of_the_sign_in_is_open_to_who_its_line_names(callers: Callers, door: Door) -> None:
    await callers.sign_in()

    async def ask(caller: str) -> bool:
        return is_in(await callers.visit(caller, door.kind, door.name), REFUSED_BY_CONSOLE)

    assert await let_in(callers.running, door, ask) == door.who


async def test_everybody_may_sign_out_and_then_has_no_session(callers: Callers) -> None:
    (door,) = [door for door in SIGN_IN_DOORS if door.name == "/console/sign-out"]
    assert door.who == set(CALLERS)
    await callers.sign_in()
    for caller in CALLERS:
        answer = await callers.visit(caller, door.kind, door.name)
        assert (answer.status, answer.location) == (303, SIGN_IN_PATH)
        assert not is_in(await callers.visit(caller, "GET", "/console/"), REFUSED_BY_CONSOLE)


@each(PAGE_DOORS)
async def test_a_page_is_open_to_who_its_line_names(callers: Callers, door: Door) -> None:
    await callers.sign_in()

    async def ask(caller: str) -> bool:
        return is_in(await callers.visit(caller, door.kind, filled(door.name)), REFUSED_BY_CONSOLE)

    assert await let_in(callers.running, door, ask) == door.who


@each(PAGE_DOORS)
async def test_a_page_asks_for_a_recent_proof_where_its_line_says_so(callers: Callers, door: Door) -> None:
    await callers.sign_in()
    callers.running.offset += PROOF_MS / 1000 + 1
    for caller in door.who:
        answer = await callers.visit(caller, door.kind, filled(door.name))
        assert answer.location.startswith("/console/prove?") == door.proof, caller


# ---- live channels


@pytest.fixture
async def listening(tmp_path: Path) -> AsyncIterator[Callers]:
    running = Running(tmp_path)
    await running.open()
    callers = Callers(running)
    await callers.arrive()
    async with running.listening():
        yield callers
    running.store.close()


def message(callers: Callers, caller: str, tag: str) -> control.Message | None:
    """Return a message of a live channel; None: nothing beyond attaching."""
    if tag == "attach":
        return None
    key = callers.attaches_with(caller)[1]
    messages: list[control.Message] = [
        control.Heartbeat(sequence=1, time_ms=1),
        control.Renew(),
        control.RenewCertificate(request=certificate_request(key)),
        control.Punch(connector=1),
        control.EndSession(),
        control.CutReceipt(id=1, stopped_at_ms=1, took_ms=1.0),
        control.FlowEvents(batch=1, events=[]),
    ]
    return {str(one.__struct_config__.tag): one for one in messages}[tag]


async def on_live_channel(callers: Callers, caller: str, tag: str) -> bool:
    async with callers.running.channel() as channel:
        await channel.attach(*callers.attaches_with(caller))
        if json.loads(await channel.text())["type"] == "refused":
            return False
        sent = message(callers, caller, tag)
        return await is_taken(channel, sent and control.encode(sent))


async def is_taken(channel: Channel, text: str | None) -> bool:
    """Send a message, and return whether it is answered by no refusal: the channel goes on, or ends as the message asks."""
    with suppress(ConnectionClosed):  # what was said before that can still be read
        if text is not None:
            await channel.connection.send(text)
        await channel.send(control.Heartbeat(sequence=77, time_ms=1))
    try:
        while (answer := json.loads(await channel.text()))["type"] != "refused":
            if answer["type"] == "heartbeat-answer" and answer["sequence"] == 77:
                return True
    except ConnectionClosed:
        return True
    return False


async def on_relay_channel(callers: Callers, caller: str, tag: str) -> bool:
    report = RelayReport(address="127.0.0.1:1", certificate_sha256="0" * 64, version="1")
    try:
        async with callers.running.relay_channel(callers.secrets[caller]) as channel:
            if tag == "relay-report":
                await channel.connection.send(encode(report))
                return json.loads(await channel.text())["type"] == "relay-configuration"
            return True
    except ControllerUnreachable:
        return False


@each([door for door in CHANNEL_DOORS if door.name != "end-session"])
async def test_a_channel_takes_a_message_from_who_its_line_names(listening: Callers, door: Door) -> None:
    ask = on_live_channel if door.kind == "live" else on_relay_channel
    assert await let_in(listening.running, door, lambda caller: ask(listening, caller, door.name)) == door.who


async def test_a_session_is_ended_by_its_client_and_by_no_other_peer(listening: Callers) -> None:
    (door,) = [door for door in CHANNEL_DOORS if door.name == "end-session"]
    read = listening.running.read
    refused = [caller for caller in CALLERS if not await on_live_channel(listening, caller, door.name)]
    assert set(CALLERS) - set(refused) == door.who
    ended = await read(lambda tx: [row.id for row in tx.sessions.find() if row.ended_at_ms is not None])
    assert ended == [listening.session.id]


async def test_a_meeting_is_reflected_for_its_two_sides(listening: Callers) -> None:
    """The token of the meeting stands in the body: the address it was given to is the other half of the credential."""
    (door,) = [door for door in PATH_DOORS if door.name == REFLECT_PATH]
    running = listening.running
    connector, client = listening.connector, listening.session
    async with running.attached(connector) as its, running.attached(client) as mine:
        await its.send(control.Heartbeat(sequence=1, time_ms=1, punches=True))
        while not any(one.punches for one in (await mine.wait_for(control.ClientConfiguration)).connectors):
            pass
        addresses = {"client": "8.8.8.8", "connector": "9.9.9.9"}
        for peer in running.peers.clients.values():
            peer.address = addresses["client"]
        running.peers.connectors[connector.id].address = addresses["connector"]
        await mine.send(control.Punch(connector=connector.id))
        tokens = {
            "client": (await mine.wait_for(control.PunchInvitation)).token,
            "connector": (await its.wait_for(control.PunchInvitation)).token,
        }
        got = set()
        for caller in CALLERS:
            body = {"token": tokens.get(caller, listening.secrets[caller])}
            if is_in(await listening.ask(caller, "POST", REFLECT_PATH, source=addresses.get(caller, "8.8.4.4"), json=body)):
                got.add(caller)
        assert got == door.who
