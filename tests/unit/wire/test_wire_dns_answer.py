"""Reading what resolvers say, with dnspython as the judge; and arbitrary bytes, which are refused or read with a bound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ProtocolError
from klinket.wire import link_control
from klinket.wire.dns import MAX_UDP_PAYLOAD
from klinket.wire.dns_answer import MAX_RECORDS, DnsAnswer, decode_answer, encode_query
from klinket.wire.link_control import AskName, NameAnswer
from tests.unit.wire.conftest import MODERATE

NAME = "db.corp.internal"
VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "name-answers.json").read_text())
#: Texts of records whose names are compressed by dnspython, or by nobody.
RECORDS = {
    "MX": ["10 mail.corp.internal.", "20 mail2.other.internal."],
    "TXT": ['"v=spf1 -all"', '"two" "texts"'],
    "SRV": ["0 5 5432 db1.corp.internal."],
    "NS": ["ns1.corp.internal."],
    "SOA": ["ns1.corp.internal. admin.corp.internal. 7 3600 600 86400 60"],
    "CAA": ['0 issue "ca.internal"'],
    "NAPTR": ['100 10 "S" "SIP+D2U" "" _sip._udp.corp.internal.'],
    "PTR": ["host.corp.internal."],
    "SSHFP": ["1 1 " + "ab" * 20],
    "CNAME": ["other.corp.internal."],
    "RP": ["admin.corp.internal. text.corp.internal."],
}


def question(kind: str = "MX", name: str = NAME) -> bytes:
    return encode_query(0x1234, name, dns.rdatatype.from_text(kind))


def answered(query: bytes, *rrsets: dns.rrset.RRset, **flags: Any) -> bytes:
    answer = dns.message.make_response(dns.message.from_wire(query))
    answer.answer.extend(rrsets)
    answer.flags |= flags.get("flags", 0)
    answer.set_rcode(flags.get("rcode", dns.rcode.NOERROR))
    return answer.to_wire(max_size=65_535)


def read(records: tuple[bytes, ...], kind: str) -> list[str]:
    type = dns.rdatatype.from_text(kind)
    return [dns.rdata.from_wire(dns.rdataclass.IN, type, data, 0, len(data)).to_text() for data in records]


def test_a_question_is_what_the_judge_reads() -> None:
    read_back = dns.message.from_wire(question("SRV", "_sip._tcp.corp.internal"))
    (asked,) = read_back.question
    assert (asked.name.to_text(), asked.rdtype) == ("_sip._tcp.corp.internal.", dns.rdatatype.SRV)
    assert read_back.flags & dns.flags.RD
    assert read_back.payload == MAX_UDP_PAYLOAD


@pytest.mark.parametrize("kind", RECORDS)
def test_records_come_out_without_compression(kind: str) -> None:
    query = question(kind)
    answer = decode_answer(answered(query, dns.rrset.from_text(NAME + ".", 77, "IN", kind, *RECORDS[kind])), query)
    assert (answer.code, answer.seconds) == (0, 77)
    assert sorted(read(answer.records, kind)) == sorted(RECORDS[kind])


def test_aliases_are_followed_and_the_shortest_time_counts() -> None:
    query = question()
    answer = decode_answer(
        answered(
            query,
            dns.rrset.from_text("real.corp.internal.", 300, "IN", "MX", "10 mail.corp.internal."),
            dns.rrset.from_text(NAME + ".", 20, "IN", "CNAME", "Real.Corp.internal."),
            dns.rrset.from_text("unasked.internal.", 1, "IN", "MX", "10 evil.internal."),
        ),
        query,
    )
    assert answer.seconds == 20
    assert read(answer.records, "MX") == ["10 mail.corp.internal."]


def test_aliases_in_a_circle_end() -> None:
    query = question()
    circle = [dns.rrset.from_text(f"{one}.", 9, "IN", "CNAME", f"{other}.") for one, other in ((NAME, "b.c"), ("b.c", NAME))]
    assert decode_answer(answered(query, *circle), query).records == ()


@pytest.mark.parametrize("code", [dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_a_code_is_told(code: dns.rcode.Rcode) -> None:
    assert decode_answer(answered(question(), rcode=code), question()) == DnsAnswer(int(code))


def test_what_was_cut_off_says_so() -> None:
    assert decode_answer(answered(question(), flags=dns.flags.TC), question()).truncated


def test_only_an_answer_to_the_very_question_counts() -> None:
    query = question()
    right = answered(query)
    for wrong in (
        b"",
        right[:20],
        b"\x12\x35" + right[2:],
        query,
        answered(question("TXT")),
        answered(question("MX", "db.corp.interna1")),
    ):
        with pytest.raises(ProtocolError):
            decode_answer(wrong, query)
    assert decode_answer(right.replace(b"corp", b"CORP"), query).code == 0, "resolvers may change the case"


def test_more_records_than_the_bound_are_refused() -> None:
    query = question("TXT")
    message = bytearray(answered(query))
    message[6:8] = (MAX_RECORDS + 1).to_bytes(2)
    with pytest.raises(ProtocolError):
        decode_answer(bytes(message), query)


@MODERATE
@given(st.binary(max_size=200), st.integers(0, 5), st.sampled_from(["MX", "SOA", "NAPTR", "TXT", "SRV"]))
def test_arbitrary_bytes_behind_a_question_are_read_or_refused(tail: bytes, count: int, kind: str) -> None:
    query = question(kind)
    head = bytearray(query[:-11])
    head[2:12] = b"\x80\x00\x00\x01" + count.to_bytes(2) + bytes(4)
    try:
        answer = decode_answer(bytes(head) + tail, query)
    except ProtocolError:
        return
    assert len(answer.records) <= count
    assert all(len(data) <= len(tail) + 4 * 255 for data in answer.records)


@MODERATE
@given(st.binary(max_size=30), st.integers(0, 300))
def test_a_flipped_answer_is_read_or_refused(noise: bytes, at: int) -> None:
    query = question()
    message = bytearray(answered(query, dns.rrset.from_text(NAME + ".", 77, "IN", "MX", *RECORDS["MX"])))
    message[at : at + len(noise)] = noise
    try:
        decode_answer(bytes(message), query)
    except ProtocolError:
        pass


def test_pointers_only_lead_back() -> None:
    query = question("MX")
    end = len(query) - 11
    head = bytearray(query[:-11])
    head[2:12] = b"\x80\x00\x00\x01\x00\x01" + bytes(4)
    for pointer in (end, end + 1, 0x3FFF):
        with pytest.raises(ProtocolError):
            decode_answer(bytes(head) + (0xC000 | pointer).to_bytes(2) + bytes(12), query)


@pytest.mark.parametrize("vector", VECTORS["messages"], ids=lambda vector: vector["about"])
def test_the_messages_about_names_are_these(vector: dict[str, Any]) -> None:
    json_text = vector["json"].encode()
    fields = {**vector["fields"]}
    if vector["type"] == "ask-name":
        asked = AskName(**fields)
        assert link_control.encode(asked) == json_text
        assert link_control.decode_from_client(json_text) == asked
        return
    fields["records"] = [bytes.fromhex(data) for data in fields["records"]]
    answer = NameAnswer(**fields)
    assert link_control.encode(answer) == json_text
    assert link_control.decode_from_connector(json_text) == answer


@pytest.mark.parametrize("vector", VECTORS["answers"], ids=lambda vector: vector["about"])
def test_these_answers_of_a_resolver_are_read_so(vector: dict[str, Any]) -> None:
    query = encode_query(vector["id"], vector["name"], vector["record_type"])
    assert query.hex() == vector["query"]
    answer = decode_answer(bytes.fromhex(vector["answer"]), query)
    assert (answer.code, answer.seconds) == (vector["code"], vector["seconds"])
    assert [data.hex() for data in answer.records] == vector["records"]
