"""The stub's DNS bytes, with dnspython as the judge of what is a query and what an answer says."""

from __future__ import annotations

import ipaddress

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.client.capture import dns_message
from klinket.client.capture.dns_message import parse_query
from klinket.domain.errors import ProtocolError
from klinket.wire.dns import IN, Code, RecordType

LABEL = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", fullmatch=True)
NAMES = st.lists(LABEL, min_size=1, max_size=8).filter(lambda labels: sum(map(len, labels)) + len(labels) <= 254)
TYPES = st.sampled_from(["A", "AAAA", "MX", "TXT", "SRV", "PTR", "HTTPS", "SVCB", "ANY"])


@given(NAMES, TYPES, st.booleans(), st.integers(0, 65_535))
def test_queries_are_read_as_dnspython_writes_them(labels: list[str], kind: str, edns: bool, id: int) -> None:
    name = ".".join(labels)
    made = dns.message.make_query(name + ".", kind, use_edns=0 if edns else False, id=id)
    query = parse_query(made.to_wire())
    assert query.name == name
    assert query.type == dns.rdatatype.from_text(kind)
    assert query.dns_class == IN
    assert int.from_bytes(query.id) == id


@given(NAMES, st.ip_addresses(v=4), st.integers(0, 86_400), st.booleans())
def test_an_address_is_answered_for_the_name_that_was_asked(
    labels: list[str], address: ipaddress.IPv4Address, seconds: int, recursion: bool
) -> None:
    made = dns.message.make_query(".".join(labels) + ".", "A", flags=dns.flags.RD if recursion else 0)
    answer = dns.message.from_wire(dns_message.answer_address(parse_query(made.to_wire()), str(address), seconds))
    assert made.is_response(answer)
    assert answer.rcode() == dns.rcode.NOERROR
    assert bool(answer.flags & dns.flags.RD) == recursion
    assert answer.flags & dns.flags.RA
    (rrset,) = answer.answer
    assert (rrset.name, rrset.ttl, rrset.rdtype) == (made.question[0].name, seconds, dns.rdatatype.A)
    assert [record.address for record in rrset] == [str(address)]


@given(NAMES, st.sampled_from(list(Code)))
def test_codes_are_answered_without_records(labels: list[str], code: Code) -> None:
    made = dns.message.make_query(".".join(labels) + ".", "A")
    answer = dns.message.from_wire(dns_message.answer_code(parse_query(made.to_wire()), code))
    assert made.is_response(answer)
    assert (answer.rcode(), answer.answer) == (code, [])


@given(st.ip_addresses(v=4), NAMES)
def test_reverse_queries_name_their_address_and_are_answered(address: ipaddress.IPv4Address, labels: list[str]) -> None:
    made = dns.message.make_query(address.reverse_pointer + ".", "PTR")
    query = parse_query(made.to_wire())
    assert query.reverse_address == str(address)
    name = ".".join(labels).lower()
    answer = dns.message.from_wire(dns_message.answer_name(query, name, 60))
    assert made.is_response(answer)
    assert [record.target.to_text(omit_final_dot=True) for record in answer.answer[0]] == [dns.name.from_text(name).to_text(True)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("1.0.0.10.in-addr.arpa", "A"), ("1.0.10.in-addr.arpa", "PTR"), ("db.internal", "PTR"), ("1.0.0.0.ip6.arpa", "PTR")],
)
def test_other_queries_name_no_address(name: str, kind: str) -> None:
    assert parse_query(dns.message.make_query(name, kind).to_wire()).reverse_address is None


@given(st.binary(max_size=400))
def test_any_bytes_are_a_query_or_refused(message: bytes) -> None:
    agree_with_dnspython(message)


@given(NAMES, st.data())
def test_damaged_queries_are_read_as_dnspython_does_or_refused(labels: list[str], data: st.DataObject) -> None:
    wire = bytearray(dns.message.make_query(".".join(labels) + ".", "A").to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    agree_with_dnspython(bytes(wire[: data.draw(st.integers(0, len(wire)))]))


def agree_with_dnspython(message: bytes) -> None:
    """Where a query is read, dnspython reads the same name, type and class."""
    try:
        query = parse_query(message)
    except ProtocolError:
        return
    parsed = dns.message.from_wire(message, question_only=True)
    asked = parsed.question[0]
    assert b".".join(asked.name.labels[:-1]) == query.name.encode("latin-1")
    assert (asked.rdtype, asked.rdclass) == (query.type, query.dns_class)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        bytes(11),
        bytes(12),
        b"\0\1\x80\0\0\1\0\0\0\0\0\0\0\0\1\0\1",
        b"\0\1\x28\0\0\1\0\0\0\0\0\0\0\0\1\0\1",
        b"\0\1\1\0\0\2\0\0\0\0\0\0\0\0\1\0\1",
        b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
        b"\0\1\1\0\0\1\0\0\0\0\0\0\x40" + b"a" * 64 + b"\0\0\1\0\1",
        b"\0\1\1\0\0\1\0\0\0\0\0\0\3abc",
        b"\0\1\1\0\0\1\0\0\0\0\0\0\3abc\0\0\1\0",
        b"\0\1\1\0\0\1\0\0\0\0\0\0" + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
        b"\0\1\1\0\0\1\0\0\0\0\0\0" + (b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0\0\1\0\1",
    ],
    ids=[
        "empty", "short", "no question", "answer", "opcode", "two questions", "compressed", "label of 64", "cut off in the name",
        "cut off in the class", "name of 257", "name of 256",
    ],
)  # fmt: skip
def test_what_is_no_query_is_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_query(message)


def test_the_longest_name_is_read() -> None:
    message = b"\0\1\1\0\0\1\0\0\0\0\0\0" + (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0\0\1\0\1"
    assert len(parse_query(message).name) == 253
    assert dns.message.from_wire(message).question[0].rdtype == dns.rdatatype.A
    assert RecordType.A == dns.rdatatype.A
    assert IN == dns.rdataclass.IN
