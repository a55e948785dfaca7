"""Ranges of addresses that an API token may be used from."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import InvalidInput
from klinket.domain.source_range import MAX_RANGES, covers, parse_ranges, within
from tests.unit.domain.conftest import MODERATE


@pytest.mark.parametrize(
    ("texts", "ranges"),
    [
        (["192.0.2.0/24"], ["192.0.2.0/24"]),
        ([" 192.0.2.7 "], ["192.0.2.7/32"]),
        (["2001:DB8:0::/32"], ["2001:db8::/32"]),
        (["2001:db8::1"], ["2001:db8::1/128"]),
        (["10.0.0.0/255.0.0.0", "10.0.0.0/8"], ["10.0.0.0/8"]),
        (["::ffff:192.0.2.0/120"], ["192.0.2.0/24"]),
        (["::ffff:192.0.2.7"], ["192.0.2.7/32"]),
        (["0.0.0.0/0", "::/0"], ["0.0.0.0/0", "::/0"]),
        ([], []),
    ],
)
def test_a_range_is_kept_in_its_one_spelling(texts: list[str], ranges: list[str]) -> None:
    assert parse_ranges(texts) == ranges
    assert parse_ranges(ranges) == ranges


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.1/24",
        "192.0.2.0/33",
        "office",
        "192.0.2.0-192.0.2.9",
        "fe80::%eth0/64",
        "fe80::1%eth0",
        "1" * 5_000,
        "\ud800",
    ],
)
def test_other_texts_are_refused_by_field(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_ranges([text])
    assert refused.value.field == "allowedRanges"
    assert len(refused.value.message) < 200


def test_a_token_has_so_many_ranges_and_no_more() -> None:
    texts = [f"10.0.{number}.0/24" for number in range(MAX_RANGES)]
    assert parse_ranges([*texts, *texts]) == texts
    with pytest.raises(InvalidInput, match="the limit is 64"):
        parse_ranges([*texts, "192.0.2.0/24"])


@pytest.mark.parametrize(
    ("ranges", "address", "covered"),
    [
        (["192.0.2.0/24"], "192.0.2.255", True),
        (["192.0.2.0/24"], "192.0.3.0", False),
        (["192.0.2.0/24"], "::ffff:192.0.2.7", True),
        (["192.0.2.0/24"], "::ffff:192.0.3.7", False),
        (["192.0.2.0/24"], "2001:db8::1", False),
        (["2001:db8::/32"], "2001:db8:ffff::1", True),
        (["2001:db8::/32"], "192.0.2.7", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["::/0"], "::ffff:192.0.2.7", False),
        (["198.51.100.0/24", "192.0.2.7/32"], "192.0.2.7", True),
        (["0.0.0.0/0", "::/0"], "", False),
        (["0.0.0.0/0"], "localhost", False),
        ([], "192.0.2.7", False),
    ],
)
def test_an_address_is_covered_by_a_range_of_its_family(ranges: list[str], address: str, covered: bool) -> None:
    assert covers(ranges, address) is covered


@pytest.mark.parametrize(
    ("inner", "outer", "answer"),
    [
        ([], [], True),
        (["192.0.2.0/24"], [], True),
        ([], ["192.0.2.0/24"], False),
        (["192.0.2.0/24"], ["192.0.2.0/24"], True),
        (["192.0.2.7/32"], ["192.0.2.0/24"], True),
        (["192.0.2.0/23"], ["192.0.2.0/24"], False),
        (["192.0.2.0/23"], ["192.0.2.0/24", "192.0.3.0/24"], True),
        (["192.0.2.7/32", "198.51.100.1/32"], ["192.0.2.0/24"], False),
        (["2001:db8::/32"], ["192.0.2.0/24"], False),
        (["2001:db8:1::/48", "192.0.2.7/32"], ["192.0.2.0/24", "2001:db8::/32"], True),
    ],
)
def test_ranges_lie_within_others_when_they_allow_no_more(inner: list[str], outer: list[str], answer: bool) -> None:
    assert within(inner, outer) is answer


@MODERATE
@given(st.text(max_size=60) | st.from_regex(r"[0-9a-f:.]{1,20}/[0-9]{1,3}", fullmatch=True))
def test_any_text_is_a_range_or_refused(text: str) -> None:
    try:
        (found,) = parse_ranges([text])
    except InvalidInput:
        return
    network = ipaddress.ip_network(found)
    assert covers([found], str(network.network_address))
    assert covers([found], str(network.broadcast_address))


@MODERATE
@given(st.text(max_size=60))
def test_any_text_is_an_address_or_not_covered(text: str) -> None:
    assert covers(["0.0.0.0/0", "::/0"], text) in (True, False)
