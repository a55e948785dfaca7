"""Ports and protocols of resources (facts §4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import InvalidInput
from klinket.domain.flow import TransportProtocol
from klinket.domain.ports import MAX_RANGES, PortPolicy, PortRange, PortRule, Protocols, narrows
from tests.unit.domain.conftest import MODERATE

PORT = st.integers(1, 65_535)
RANGES = st.tuples(PORT, PORT).map(lambda ends: PortRange(min(ends), max(ends)))
SMALL = st.integers(1, 12)
SMALL_RANGES = st.tuples(SMALL, SMALL).map(lambda ends: PortRange(min(ends), max(ends)))
SMALL_RULES = st.lists(SMALL_RANGES, max_size=5).map(lambda spans: PortRule(PortPolicy.RESTRICTED, tuple(spans)))
RULES = st.one_of(st.just(PortRule()), SMALL_RULES)
EVERYTHING = PortRange(1, 65_535)


def restricted(*texts: str) -> PortRule:
    return PortRule(PortPolicy.RESTRICTED, tuple(PortRange.parse(text) for text in texts))


def open_ports(rule: PortRule) -> set[int]:
    """Return the ports below 20 that are open, and the last one."""
    return {port for port in (*range(20), 65_535, 65_536) if rule.allows(port)}


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("1", 1, 1),
        ("65535", 65_535, 65_535),
        (" 443 ", 443, 443),
        ("8000-8999", 8000, 8999),
        ("1-65535", 1, 65_535),
        ("7-7", 7, 7),
    ],
)
def test_a_range_is_understood(text: str, first: int, last: int) -> None:
    assert PortRange.parse(text) == PortRange(first, last)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "0",
        "70000",
        "65536",
        "9-5",
        "0-5",
        "5-70000",
        "1-",
        "-1",
        "1-2-3",
        "1 - 2",
        "a",
        "٣",
        "1.5",
        "+1",
        "1e3",
        "99999999",
    ],
)
def test_other_ranges_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        PortRange.parse(text)
    assert refused.value.field == "ports"


@pytest.mark.parametrize(("first", "last"), [(0, 5), (9, 5), (5, 70_000), (-1, 1), (70_000, 70_000)])
def test_no_range_can_be_made_outside_the_rules(first: int, last: int) -> None:
    with pytest.raises(InvalidInput):
        PortRange(first, last)


@MODERATE
@given(RANGES)
def test_a_range_is_written_as_it_is_read(span: PortRange) -> None:
    assert PortRange.parse(str(span)) == span
    assert span.first in span
    assert span.last in span
    assert span.first - 1 not in span
    assert span.last + 1 not in span


@MODERATE
@given(st.text(st.characters(codec=None), max_size=12) | st.text("0123456789- ", max_size=12))
def test_any_text_is_a_range_or_refused(text: str) -> None:
    try:
        span = PortRange.parse(text)
    except InvalidInput:
        return
    assert 1 <= span.first <= span.last <= 65_535


def test_ranges_keep_the_order_they_were_given_in() -> None:
    assert [str(span) for span in restricted("443", "80", "8000-8999").ports] == ["443", "80", "8000-8999"]


def test_allow_all_takes_no_ranges() -> None:
    with pytest.raises(InvalidInput) as refused:
        PortRule(PortPolicy.ALLOW_ALL, (EVERYTHING,))
    assert refused.value.field == "protocols"


def test_ranges_are_limited() -> None:
    ranges = tuple(PortRange(port, port) for port in range(1, MAX_RANGES + 2))
    assert PortRule(PortPolicy.RESTRICTED, ranges[:-1]).allows(MAX_RANGES)
    with pytest.raises(InvalidInput):
        PortRule(PortPolicy.RESTRICTED, ranges)


def test_restricted_without_ports_allows_nothing() -> None:
    assert open_ports(restricted()) == set()


def test_allow_all_allows_every_port_there_is() -> None:
    assert open_ports(PortRule()) == {*range(1, 20), 65_535}


def test_both_ends_of_a_range_are_included() -> None:
    assert open_ports(restricted("3-5", "9")) == {3, 4, 5, 9}


@MODERATE
@given(RULES)
def test_spans_say_all_of_a_rule(rule: PortRule) -> None:
    again = PortRule.of_spans(rule.spans())
    assert open_ports(again) == open_ports(rule)
    assert again.spans() == rule.spans()


@MODERATE
@given(RULES, RULES)
def test_a_rule_covers_another_when_no_port_of_it_is_missing(one: PortRule, other: PortRule) -> None:
    assert one.covers(other) is (open_ports(other) <= open_ports(one))


def test_adjacent_ranges_cover_what_spans_them() -> None:
    assert restricted("5-9", "1-4").covers(restricted("2-8"))
    assert not restricted("1-3", "5-9").covers(restricted("2-8"))
    assert restricted("1-40000", "30000-65535").covers(PortRule())


def test_each_protocol_has_its_own_rule() -> None:
    protocols = Protocols(tcp=restricted("443"), udp=restricted("53"))
    assert protocols.allows(TransportProtocol.TCP, 443)
    assert protocols.allows(TransportProtocol.UDP, 53)
    assert not protocols.allows(TransportProtocol.TCP, 53)
    assert not protocols.allows(TransportProtocol.UDP, 443)


@MODERATE
@given(RULES, RULES, st.booleans(), RULES, RULES, st.booleans())
def test_a_change_narrows_when_it_takes_something_away(
    tcp: PortRule, udp: PortRule, icmp: bool, new_tcp: PortRule, new_udp: PortRule, new_icmp: bool
) -> None:
    lost = open_ports(tcp) - open_ports(new_tcp) or open_ports(udp) - open_ports(new_udp) or (icmp and not new_icmp)
    assert narrows(Protocols(tcp, udp, icmp), Protocols(new_tcp, new_udp, new_icmp)) is bool(lost)
