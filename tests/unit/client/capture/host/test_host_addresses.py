"""What is captured: every granted address once, without overlap, and never another one; what was granted stays captured."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klinket.client.capture.host import addresses
from klinket.client.capture.host.addresses import SYNTHETIC, Remembered, capturable, difference, maximal
from klinket.domain.address import IPNetwork


def networks(version: int) -> st.SearchStrategy[IPNetwork]:
    bits = 32 if version == 4 else 128
    kind = ipaddress.ip_network
    return st.tuples(st.integers(0, 2**bits - 1), st.integers(0, bits)).map(
        lambda parts: (
            kind((parts[0] >> (bits - parts[1]) << (bits - parts[1]), parts[1]))  # type: ignore[arg-type]
            if version == 4 or parts[0] >> (bits - parts[1]) << (bits - parts[1]) > 2**32
            else ipaddress.IPv6Network((2**127, max(parts[1], 1)))
        )
    )


NETWORKS = st.lists(networks(4) | networks(6), max_size=30)


def by_text(found: list[IPNetwork]) -> dict[str, IPNetwork]:
    return {str(network): network for network in found}


@settings(deadline=None)
@given(NETWORKS)
def test_the_captured_networks_cover_what_was_granted_and_nothing_else(found: list[IPNetwork]) -> None:
    kept = [ipaddress.ip_network(text) for text in maximal(by_text(found))]
    for version in (4, 6):
        covered = list(ipaddress.collapse_addresses(one for one in kept if one.version == version))  # type: ignore[type-var]
        wanted = list(ipaddress.collapse_addresses(one for one in found if one.version == version))  # type: ignore[type-var]
        assert covered == wanted


@settings(deadline=None)
@given(NETWORKS)
def test_captured_networks_do_not_overlap(found: list[IPNetwork]) -> None:
    kept = [ipaddress.ip_network(text) for text in maximal(by_text(found))]
    assert not any(one.overlaps(other) for one in kept for other in kept if one is not other)
    assert all(one.prefixlen for one in kept), "a set takes no interval of everything"


@settings(deadline=None)
@given(NETWORKS, NETWORKS)
def test_only_the_difference_is_changed(before: list[IPNetwork], after: list[IPNetwork]) -> None:
    old, new = maximal(by_text(before)), maximal(by_text(after))
    change = difference(old, new)
    assert (old - change.removed) | change.added == new
    assert not change.removed & new
    assert not change.added & old
    assert bool(change) == (old != new)


@pytest.mark.parametrize(
    "text", ["127.0.0.1/32", "127.0.0.0/8", "169.254.169.254/32", "224.0.0.5/32", "::1/128", "fe80::1/128", "ff02::1/128"]
)
def test_what_is_never_another_machines_is_not_captured(text: str) -> None:
    assert not capturable(ipaddress.ip_network(text))
    made = Remembered()
    made.take({text: ipaddress.ip_network(text)})
    assert made.captured() == {str(one) for one in SYNTHETIC}


@pytest.mark.parametrize("text", ["10.0.0.1/32", "126.0.0.0/7", "0.0.0.0/0", "::/0", "169.0.0.0/8", "fe00::/9"])
def test_what_holds_other_machines_addresses_is_captured(text: str) -> None:
    assert capturable(ipaddress.ip_network(text))


def test_what_stands_for_names_is_always_captured() -> None:
    assert Remembered().captured() == {"100.96.0.0/12", "fd6b:6c69:6e6b:e7::6460:0/108"}


def test_what_was_granted_stays_captured_and_the_oldest_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MAX_FORMER", 2)
    made = Remembered()
    grants = [{f"10.0.0.{n}/32": ipaddress.ip_network(f"10.0.0.{n}/32")} for n in range(5)]
    for granted in grants:
        assert made.take(granted)
    own = {str(one) for one in SYNTHETIC}
    assert made.captured() - own == {"10.0.0.2/32", "10.0.0.3/32", "10.0.0.4/32"}
    assert not made.take(grants[4]), "nothing has changed"
    assert not made.take(grants[3]), "it was captured already"
    made.take(grants[0])
    assert made.captured() - own == {"10.0.0.0/32", "10.0.0.3/32", "10.0.0.4/32"}
