"""Synthetic addresses stand for one name each, for as long as the process lives."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.client.capture import synthetic
from klinket.client.capture.namespace import rules
from klinket.client.capture.synthetic import SyntheticAddresses


@given(st.lists(st.text(min_size=1, max_size=20), max_size=60))
def test_each_name_keeps_one_address_of_its_own(names: list[str]) -> None:
    table = SyntheticAddresses()
    given_out = {name: table.address_of(name) for name in names}
    assert len(set(given_out.values())) == len(set(names))
    for name, address in given_out.items():
        assert address is not None
        assert table.address_of(name) == address
        assert table.name_of(address) == name
        assert table.knows(name)
        assert address in table
        assert ipaddress.ip_address(address) in ipaddress.ip_network("100.96.0.0/12")
        assert address not in (rules.OWN_ADDRESS, rules.DNS_ADDRESS)


def test_an_address_in_the_range_that_was_not_given_stands_for_nothing() -> None:
    table = SyntheticAddresses()
    assert table.address_of("db.internal") == "100.96.0.1"
    assert table.name_of("100.96.0.2") is None
    assert "100.96.0.2" in table
    assert "100.95.255.255" not in table
    assert "100.112.0.0" not in table
    assert not table.knows("other.internal")


def test_a_full_table_gives_no_more_and_forgets_nothing(monkeypatch: object) -> None:
    table = SyntheticAddresses()
    assert 0 < synthetic.MAX_NAMES < synthetic.RANGE.num_addresses
    monkeypatch.setattr(synthetic, "MAX_NAMES", 2)  # type: ignore[attr-defined]
    first, second = table.address_of("a"), table.address_of("b")
    assert table.address_of("c") is None
    assert not table.knows("c")
    assert (table.address_of("a"), table.address_of("b")) == (first, second)


def test_the_namespaces_own_addresses_are_never_given_to_a_name() -> None:
    last = ipaddress.ip_address(int(synthetic.RANGE.network_address) + synthetic.MAX_NAMES)
    for own in (rules.OWN_ADDRESS, rules.DNS_ADDRESS):
        address = ipaddress.ip_address(own)
        assert address < synthetic.RANGE.network_address or address > last


def test_fast_names_and_others_have_a_half_each_from_any_offset() -> None:
    for offset in (0, 1, 12_345, synthetic.FAST_RANGE.num_addresses - 1):
        table = SyntheticAddresses(halves=True, offset=offset)
        for number in range(50):
            slow, fast = table.address_of(f"slow{number}"), table.address_of(f"fast{number}", fast=True)
            assert slow is not None
            assert fast is not None
            assert ipaddress.ip_address(fast) in synthetic.FAST_RANGE
            assert ipaddress.ip_address(slow) not in synthetic.FAST_RANGE
            assert ipaddress.ip_address(slow) in synthetic.RANGE
            assert table.name_of(synthetic.twin(slow)) == f"slow{number}"
            edges = {network[index] for network in (synthetic.RANGE, synthetic.FAST_RANGE) for index in (0, -1)}
            assert not edges & {ipaddress.ip_address(slow), ipaddress.ip_address(fast)}
        assert len({table.address_of(f"{kind}{n}") for kind in ("slow", "fast") for n in range(50)}) == 100


def test_each_half_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "MAX_NAMES", 2)
    table = SyntheticAddresses(halves=True, offset=7)
    for fast in (True, False):
        assert table.address_of(f"one{fast}", fast=fast) != table.address_of(f"two{fast}", fast=fast)
        assert table.address_of(f"three{fast}", fast=fast) is None


def test_an_address_of_an_earlier_process_stands_for_nothing() -> None:
    earlier, now = SyntheticAddresses(halves=True, offset=5), SyntheticAddresses(halves=True, offset=70_000)
    address = earlier.address_of("db.internal")
    assert address is not None
    now.address_of("other.internal")
    assert now.name_of(address) is None
    assert address in now
    assert now.name_of("2001:db8::1") is None
