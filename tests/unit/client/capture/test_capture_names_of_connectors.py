"""What the stub makes of a connector's word: records, or a failure that says why (RFC 8914); dnspython is the judge."""

from __future__ import annotations

from dataclasses import dataclass, field

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import pytest

from klinket.client.capture.dns_message import ExtendedError
from klinket.client.capture.resolver import AnswerRules, OwnAnswers
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import FlowFailure
from klinket.wire.link_control import NameAnswer
from tests.unit.client.conftest import FakeClient

HOST = AnswerRules(ipv6=True, hides_ipv6=False)
AWAY = FlowRefused(FlowFailure.NO_CONNECTOR, "no connector of the remote network can be reached: none is connected")


@dataclass
class Source:
    """Implements ports.NameSource."""

    served: bool = True
    away: FlowRefused | None = None
    answer: NameAnswer = field(default_factory=lambda: NameAnswer(id=1, code=0))
    asked: list[tuple[str, int]] = field(default_factory=list)

    def is_served(self, name: str) -> bool:
        return self.served

    async def until_served(self, name: str) -> None:
        if self.away is not None:
            raise self.away

    async def records(self, name: str, record_type: int) -> NameAnswer:
        self.asked.append((name, record_type))
        await self.until_served(name)
        return self.answer


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def own(source: Source) -> OwnAnswers:
    client = FakeClient(names=source)
    client.grant("db.internal", "db.acme.example")
    client.grant("10.0.0.7")
    return OwnAnswers(client, SyntheticAddresses(), HOST)


async def ask(own: OwnAnswers, name: str, kind: str, *, over_tcp: bool = False, edns: int | None = 1232) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=edns is not None, payload=edns)
    answer = own.answer(query.to_wire(), over_tcp=over_tcp)
    assert answer is not None
    wire = answer if isinstance(answer, bytes) else await answer()
    found = dns.message.from_wire(wire)
    assert query.is_response(found)
    assert (found.edns >= 0) == (edns is not None), "EDNS is answered with EDNS"
    return found


def reason(answer: dns.message.Message) -> tuple[int, str]:
    (option,) = answer.options
    assert isinstance(option, dns.edns.EDEOption)
    return int(option.code), option.text or ""


async def test_records_are_told_as_the_connector_has_them(own: OwnAnswers, source: Source) -> None:
    source.answer = NameAnswer(id=1, code=0, seconds=30, records=[b"\x00\x0a\x04mail\x08internal\x00", b"\x00\x14\x00"])
    answer = await ask(own, "DB.internal", "MX")
    assert sorted(one.to_text() for one in answer.answer[0]) == ["10 mail.internal.", "20 ."]
    assert (answer.answer[0].ttl, source.asked) == (30, [("db.internal", 15)])


async def test_records_are_kept_no_longer_than_addresses(own: OwnAnswers, source: Source) -> None:
    source.answer = NameAnswer(id=1, code=0, seconds=86_400, records=[b"\x01x"])
    assert (await ask(own, "db.internal", "TXT")).answer[0].ttl == 60


@pytest.mark.parametrize(("edns", "records"), [(None, 2), (512, 2), (1232, 5)])
async def test_what_does_not_fit_over_udp_is_asked_again_over_tcp(
    own: OwnAnswers, source: Source, edns: int | None, records: int
) -> None:
    source.answer = NameAnswer(id=1, code=0, seconds=30, records=[bytes([249]) + b"x" * 249] * 5)
    cut_off = await ask(own, "db.internal", "TXT", edns=edns)
    assert cut_off.flags & dns.flags.TC
    assert not cut_off.answer
    source.answer = NameAnswer(id=1, code=0, seconds=30, records=[bytes([100 + n]) + b"x" * (100 + n) for n in range(records)])
    assert len((await ask(own, "db.internal", "TXT", edns=edns)).answer[0]) == records
    source.answer = NameAnswer(id=1, code=0, seconds=30, records=[bytes([100 + n]) + b"x" * (100 + n) for n in range(50)])
    assert len((await ask(own, "db.internal", "TXT", edns=edns, over_tcp=True)).answer[0]) == 50


@pytest.mark.parametrize("code", [dns.rcode.NOERROR, dns.rcode.NXDOMAIN])
async def test_a_code_without_records_is_told(own: OwnAnswers, source: Source, code: dns.rcode.Rcode) -> None:
    source.answer = NameAnswer(id=1, code=int(code))
    answer = await ask(own, "db.internal", "MX")
    assert (answer.rcode(), answer.answer) == (code, [])


async def test_why_a_connector_has_no_answer_is_told(own: OwnAnswers, source: Source) -> None:
    source.answer = NameAnswer(id=1, code=5, text="no granted resource serves db.internal")
    answer = await ask(own, "db.internal", "MX")
    assert answer.rcode() == dns.rcode.REFUSED
    assert reason(answer) == (ExtendedError.PROHIBITED, "no granted resource serves db.internal")


@pytest.mark.parametrize("kind", ["A", "AAAA", "MX", "TXT"])
@pytest.mark.parametrize("edns", [1232, None])
async def test_a_name_whose_connector_is_away_is_a_failure_that_says_so(
    own: OwnAnswers, source: Source, kind: str, edns: int | None
) -> None:
    source.served, source.away = False, AWAY
    answer = await ask(own, "db.acme.example", kind, edns=edns)
    assert (answer.rcode(), answer.answer) == (dns.rcode.SERVFAIL, [])
    if edns is not None:
        assert reason(answer) == (ExtendedError.NO_REACHABLE_AUTHORITY, AWAY.message)


async def test_a_name_is_answered_again_when_its_connector_is_back(own: OwnAnswers, source: Source) -> None:
    source.served, source.away = False, AWAY
    assert (await ask(own, "db.internal", "A")).rcode() == dns.rcode.SERVFAIL
    source.away = None
    assert len((await ask(own, "db.internal", "A")).answer) == 1


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB"])
async def test_hints_with_addresses_are_empty_and_nobody_is_asked(own: OwnAnswers, source: Source, kind: str) -> None:
    answer = await ask(own, "db.internal", kind)
    assert (answer.rcode(), answer.answer, source.asked) == (dns.rcode.NOERROR, [], [])


@pytest.mark.parametrize("kind", ["ANY", "AXFR", "IXFR", "MAILB"])
async def test_more_than_records_of_one_type_is_refused(own: OwnAnswers, source: Source, kind: str) -> None:
    query = (
        dns.message.make_query("db.internal", "MX").to_wire().replace(b"\x00\x0f\x00\x01", _type(kind).to_bytes(2) + b"\x00\x01")
    )
    wire = own.answer(query)
    assert isinstance(wire, bytes)
    assert dns.message.from_wire(wire).rcode() == dns.rcode.REFUSED
    assert source.asked == []


def _type(kind: str) -> int:
    return {"ANY": 255, "AXFR": 252, "IXFR": 251, "MAILB": 253}[kind]


async def test_the_name_of_an_address_is_asked_at_the_connector_only(own: OwnAnswers, source: Source) -> None:
    name = dns.reversename.from_address("10.0.0.7").to_text(omit_final_dot=True)
    source.answer = NameAnswer(id=1, code=0, seconds=9, records=[b"\x02db\x08internal\x00"])
    assert (await ask(own, name, "PTR")).answer[0][0].to_text() == "db.internal."
    assert source.asked == [(name, 12)]
    other = dns.message.make_query(dns.reversename.from_address("10.0.0.8"), "PTR")
    assert own.answer(other.to_wire()) is None
