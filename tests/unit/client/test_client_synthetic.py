"""Synthetic addresses stand for one name each, for as long as the process lives."""

from __future__ import annotations

import ipaddress

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
