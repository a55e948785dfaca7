"""Questions for names at the connector: real resolvers on loopback, granted names only, every bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from klinket.connector import limits
from klinket.connector.name_questions import NameQuestions, system_resolvers
from klinket.domain.cut import CutScope
from klinket.net.tasks import TaskSet
from klinket.wire.dns import Code
from klinket.wire.link_control import MAX_ANSWER_BYTES, AskName, NameAnswer
from tests.unit.connector.conftest import ACCOUNT, NOW, World, principal, resource

MX, TXT, A, AAAA, ANY, AXFR, HTTPS, SVCB = 15, 16, 1, 28, 255, 252, 65, 64
#: Nothing answers there.
DEAD = "127.77.8.2"
LIVE = "127.77.8.1"


@dataclass
class Resolver(asyncio.DatagramProtocol):
    """Answers with `records` by name and type; what is too long for UDP says so."""

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    silent: bool = False
    port: int = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.silent:
            self._transport.sendto(self.answer(data, udp=True), addr)  # type: ignore[attr-defined]

    def answer(self, data: bytes, *, udp: bool = False) -> bytes:
        query = dns.message.from_wire(data)
        question = query.question[0]
        key = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(key)
        answer = dns.message.make_response(query)
        if key in self.records:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", key[1], *self.records[key]))
        wire = answer.to_wire(max_size=65_535)
        if udp and len(wire) > 1232:
            answer.answer.clear()
            answer.flags |= dns.flags.TC
            wire = answer.to_wire()
        return wire

    async def over_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = self.answer(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
        writer.write(len(wire).to_bytes(2) + wire)
        writer.close()


@pytest.fixture
async def resolver() -> AsyncIterator[Resolver]:
    made = Resolver()
    server = await asyncio.start_server(made.over_tcp, LIVE, 0)
    made.port = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, (LIVE, made.port))
    yield made
    transport.close()
    server.close()


@dataclass
class Asking:
    """One session's questions."""

    questions: NameQuestions
    tasks: TaskSet
    told: asyncio.Queue[NameAnswer] = field(default_factory=asyncio.Queue)
    session: str = "a" * 22

    def begin(self, name: str, kind: int = MX) -> NameAnswer | None:
        return self.questions.ask(AskName(id=1, name=name, record_type=kind), principal(self.session), self.tasks, self.told.put)

    async def ask(self, name: str, kind: int = MX) -> NameAnswer:
        refused = self.begin(name, kind)
        return refused if refused is not None else await asyncio.wait_for(self.told.get(), 10)


@pytest.fixture
async def asking(world: World, resolver: Resolver) -> AsyncIterator[Asking]:
    world.granted(
        resource(1, "db.internal", alias="db.acme.example"),
        resource(2, "*.corp.internal"),
        resource(3, "10.0.0.7", alias="seven.acme"),
    )
    tasks = TaskSet("test")
    yield Asking(NameQuestions(world.core, lambda: NOW, lambda: [LIVE], resolver.port), tasks)
    await tasks.aclose()


async def test_records_of_a_granted_name_come_from_the_connectors_resolver(asking: Asking, resolver: Resolver) -> None:
    resolver.records["db.internal", "MX"] = ["10 mail.internal."]
    answer = await asking.ask("db.internal")
    assert (answer.id, answer.code, answer.seconds) == (1, 0, 60)
    assert answer.records == [b"\x00\x0a\x04mail\x08internal\x00"]


async def test_an_alias_is_asked_for_as_the_resources_address(asking: Asking, resolver: Resolver) -> None:
    resolver.records["db.internal", "TXT"] = ['"text"']
    assert (await asking.ask("db.acme.example", TXT)).records == [b"\x04text"]
    assert resolver.asked == [("db.internal", "TXT")]


async def test_an_alias_of_an_address_has_no_records_and_nobody_is_asked(asking: Asking, resolver: Resolver) -> None:
    answer = await asking.ask("seven.acme", TXT)
    assert (answer.code, answer.records, resolver.asked) == (0, [], [])


@pytest.mark.parametrize("name", ["other.internal", "internal", "corp.internal", "x.db.internal"])
async def test_a_name_that_no_granted_resource_serves_is_refused(asking: Asking, resolver: Resolver, name: str) -> None:
    answer = await asking.ask(name)
    assert (answer.code, resolver.asked) == (Code.REFUSED, [])
    assert "no granted resource serves" in answer.text


@pytest.mark.parametrize(
    "name", ["DB.internal", "db.internal.", "", "1.2.3", "10.0.0.300", "a" * 64 + ".corp.internal", "ü.corp.internal"]
)
async def test_a_name_in_another_form_is_refused(asking: Asking, resolver: Resolver, name: str) -> None:
    answer = await asking.ask(name)
    assert (answer.code, resolver.asked) == (Code.REFUSED, [])


@pytest.mark.parametrize("kind", [ANY, AXFR, 251, 41, 249, 128])
async def test_what_is_no_type_of_records_is_refused(asking: Asking, resolver: Resolver, kind: int) -> None:
    assert ((await asking.ask("db.internal", kind)).code, resolver.asked) == (Code.REFUSED, [])


@pytest.mark.parametrize("kind", [A, AAAA, 38, HTTPS, SVCB])
async def test_nothing_that_holds_addresses_is_told(asking: Asking, resolver: Resolver, kind: int) -> None:
    answer = await asking.ask("db.internal", kind)
    assert (answer.code, answer.records, resolver.asked) == (0, [], [])


async def test_a_session_without_a_grant_is_told_nothing(asking: Asking, resolver: Resolver) -> None:
    asking.session = "b" * 22
    assert ((await asking.ask("db.internal")).code, resolver.asked) == (Code.REFUSED, [])


async def test_a_name_that_was_cut_is_refused(asking: Asking, resolver: Resolver, world: World) -> None:
    world.core.apply_cut(world.cut(CutScope.of_account(ACCOUNT)), NOW)
    assert ((await asking.ask("db.internal")).code, resolver.asked) == (Code.REFUSED, [])


async def test_a_cut_while_a_resolver_thinks_counts(asking: Asking, resolver: Resolver, world: World) -> None:
    resolver.records["db.internal", "MX"] = ["10 mail.internal."]
    assert asking.begin("db.internal") is None
    world.core.apply_cut(world.cut(CutScope.of_account(ACCOUNT)), NOW)
    answer = await asyncio.wait_for(asking.told.get(), 5)
    assert (answer.code, answer.records) == (Code.REFUSED, [])


async def test_an_expired_grant_serves_no_names(world: World, resolver: Resolver) -> None:
    world.granted(resource(1, "db.internal"))
    asking = Asking(NameQuestions(world.core, lambda: NOW + 4000, lambda: [LIVE], resolver.port), TaskSet("test"))
    assert ((await asking.ask("db.internal")).code, resolver.asked) == (Code.REFUSED, [])
    await asking.tasks.aclose()


async def test_long_answers_come_over_tcp(asking: Asking, resolver: Resolver) -> None:
    resolver.records["db.internal", "TXT"] = [f'"{number}{"x" * 240}"' for number in range(20)]
    answer = await asking.ask("db.internal", TXT)
    assert len(answer.records) == 20
    assert len(resolver.asked) == 2


async def test_answers_above_the_bound_are_a_failure(asking: Asking, resolver: Resolver) -> None:
    resolver.records["db.internal", "TXT"] = [f'"{number}{"x" * 240}"' for number in range(MAX_ANSWER_BYTES // 240 + 1)]
    answer = await asking.ask("db.internal", TXT)
    assert (answer.code, answer.records) == (Code.SERVER_FAILURE, [])
    assert str(MAX_ANSWER_BYTES) in answer.text


async def test_the_next_resolver_is_asked_when_one_does_not_answer(world: World, resolver: Resolver) -> None:
    world.granted(resource(1, "db.internal"))
    resolver.records["db.internal", "MX"] = ["10 mail.internal."]
    asking = Asking(NameQuestions(world.core, lambda: NOW, lambda: [DEAD, LIVE], resolver.port), TaskSet("test"))
    assert len((await asking.ask("db.internal")).records) == 1
    await asking.tasks.aclose()


async def test_without_an_answer_there_is_a_failure_in_time(
    asking: Asking, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RESOLVER_SECONDS", 0.05)
    resolver.silent = True
    answer = await asking.ask("db.internal")
    assert (answer.code, answer.text) == (Code.SERVER_FAILURE, "no resolver of the connector has answered")


async def test_a_session_has_so_many_questions_at_a_time_and_others_have_theirs(
    asking: Asking, resolver: Resolver, world: World
) -> None:
    resolver.silent = True
    for _ in range(limits.NAME_QUESTIONS_PER_SESSION):
        assert asking.begin("db.internal") is None
    refused = asking.begin("db.internal")
    assert refused is not None
    assert refused.code == Code.SERVER_FAILURE
    world.granted(resource(1, "db.internal"), who=principal("b" * 22))
    asking.session = "b" * 22
    assert asking.begin("db.internal") is None


async def test_a_session_asks_so_many_a_second(asking: Asking) -> None:
    answers = [await asking.ask("db.internal") for _ in range(limits.NAME_QUESTIONS_BURST + 20)]
    assert {answer.code for answer in answers[: limits.NAME_QUESTIONS_BURST]} == {0}
    assert answers[-1].code == Code.SERVER_FAILURE
    assert "a second" in answers[-1].text


def test_the_resolvers_are_those_of_the_c_library(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# nameserver 192.0.2.9\nnameserver 192.0.2.1\nsearch a.b\nnameserver x\n"
        "nameserver fe80::1%eth0\nnameserver 192.0.2.3\n nameserver 192.0.2.4\n"
    )
    assert system_resolvers(file) == ["192.0.2.1", "fe80::1%eth0", "192.0.2.3"]
    assert system_resolvers(tmp_path / "missing") == []
