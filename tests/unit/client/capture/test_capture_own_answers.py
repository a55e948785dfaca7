"""What the stub answers itself, with dnspython as the judge: both kinds of address, their names, and never a word of others'."""

from __future__ import annotations

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klinket.client.capture.resolver import AnswerRules, OwnAnswers
from klinket.client.capture.synthetic import FAST_RANGE, PREFIX6, RANGE, SyntheticAddresses, twin
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import FlowFailure
from tests.unit.client.conftest import FakeClient

HOST = AnswerRules(ipv6=True, hides_ipv6=False)
LABELS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_ABC", min_size=1, max_size=20).filter(
    lambda label: label[0] not in "-" and label[-1] not in "-"
)
NAMES = st.lists(LABELS, min_size=2, max_size=5).map(".".join)


def client(*granted: str) -> FakeClient:
    made = FakeClient()
    for address in granted:
        made.grant(address)
    return made


def ask(own: OwnAnswers, name: str, kind: str) -> dns.message.Message | None:
    query = dns.message.make_query(name, kind)
    answer = own.answer(query.to_wire())
    if answer is None:
        return None
    found = dns.message.from_wire(answer)
    assert query.is_response(found)
    return found


def addresses(answer: dns.message.Message | None) -> list[str]:
    assert answer is not None
    return [record.to_text() for rrset in answer.answer for record in rrset]


@settings(deadline=None)
@given(st.lists(NAMES, max_size=10))
def test_each_name_has_one_address_of_each_kind_and_both_lead_back_to_it(names: list[str]) -> None:
    own = OwnAnswers(client("*"), SyntheticAddresses(halves=True), HOST)
    for name in names:
        if name.replace(".", "").isdigit() or name.lower().startswith("0x"):
            continue  # resolvers read these as addresses
        v4, v6 = addresses(ask(own, name, "A")), addresses(ask(own, name, "AAAA"))
        if not v4:
            continue
        assert v6 == [twin(v4[0])]
        for address in (*v4, *v6):
            back = addresses(ask(own, dns.reversename.from_address(address).to_text(), "PTR"))
            assert back == [f"{name.lower()}."]


@pytest.mark.parametrize("kind", ["MX", "TXT", "SRV", "HTTPS", "SVCB", "NS", "SOA", "CAA", "ANY"])
def test_other_types_of_a_resources_name_exist_and_are_empty(kind: str) -> None:
    answer = ask(OwnAnswers(client("db.internal"), SyntheticAddresses(), HOST), "DB.internal", kind)
    assert answer is not None
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize("kind", ["A", "AAAA", "MX", "HTTPS"])
def test_other_names_are_asked_of_others_with_every_type(kind: str) -> None:
    own = OwnAnswers(client("db.internal"), SyntheticAddresses(), HOST)
    assert ask(own, "public.example", kind) is None
    assert ask(own, "internal", kind) is None
    assert ask(own, "other.db.internal", kind) is None


def test_klinkets_own_names_are_asked_of_others_whatever_a_wildcard_says() -> None:
    rules = AnswerRules(ipv6=True, hides_ipv6=False, never=lambda: {"controller.example"})
    own = OwnAnswers(client("*.example"), SyntheticAddresses(), rules)
    assert ask(own, "Controller.example.", "A") is None
    assert addresses(ask(own, "other.example", "A"))


def test_a_name_of_the_stubs_own_is_answered_unless_it_is_granted() -> None:
    rules = AnswerRules(own={"host.internal": "192.0.2.7"})
    own = OwnAnswers(client("db.internal"), SyntheticAddresses(), rules)
    assert addresses(ask(own, "Host.internal", "A")) == ["192.0.2.7"]
    assert addresses(ask(own, "host.internal", "AAAA")) == []
    own = OwnAnswers(client("host.internal"), SyntheticAddresses(), rules)
    assert addresses(ask(own, "host.internal", "A")) != ["192.0.2.7"]


def test_before_anything_is_known_all_names_are_asked_of_others() -> None:
    made = client("db.internal")

    def not_yet(_: str) -> bool:
        raise FlowRefused(FlowFailure.CONTROLLER_UNREACHABLE, "not online yet")

    made.claims = not_yet  # type: ignore[method-assign]
    assert ask(OwnAnswers(made, SyntheticAddresses(), HOST), "db.internal", "A") is None


def test_a_fast_name_gets_an_address_of_the_fast_half_and_others_never_do() -> None:
    rules = AnswerRules(ipv6=True, hides_ipv6=False, is_fast=lambda name: name.startswith("fast"))
    own = OwnAnswers(client("*"), SyntheticAddresses(halves=True), rules)
    for name, fast in (("fast.internal", True), ("other.internal", False)):
        [address] = addresses(ask(own, name, "A"))
        assert (dns_address(address) in FAST_RANGE) == fast
        assert dns_address(address) in RANGE


def dns_address(text: str) -> object:
    import ipaddress

    return ipaddress.ip_address(text)


def test_addresses_in_the_ranges_that_stand_for_nothing_have_no_name() -> None:
    own = OwnAnswers(client(), SyntheticAddresses(), HOST)
    for address in (str(RANGE[77]), str(PREFIX6[77])):
        answer = ask(own, dns.reversename.from_address(address).to_text(), "PTR")
        assert answer is not None
        assert answer.rcode() == dns.rcode.NXDOMAIN
    for address in ("192.0.2.1", "2001:db8::1"):
        assert ask(own, dns.reversename.from_address(address).to_text(), "PTR") is None


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_are_answered_so_that_they_can_be_read_or_not_at_all(message: bytes) -> None:
    answer = OwnAnswers(client("*"), SyntheticAddresses(halves=True), HOST).answer(message)
    if answer:
        assert answer[:2] == message[:2]
        try:
            dns.message.from_wire(message)
        except dns.exception.DNSException:
            return  # the judge is stricter about what it reads than about what it is told
        dns.message.from_wire(answer)
