"""Where a name may not lead: loopback, link-local, metadata services, multicast, the connector itself."""

from __future__ import annotations

import pytest

from klinket.connector.addresses import own_addresses
from klinket.connector.forbidden import granted_by_address, is_forbidden
from klinket.domain.address import parse_ip
from tests.unit.connector.conftest import resource


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "100.100.100.200",
        "fd00:ec2::254",
        "192.0.0.192",
        "224.0.0.251",
        "239.255.255.255",
        "ff02::fb",
        "::ffff:224.0.0.1",
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
        "10.9.8.7",
        "::ffff:10.9.8.7",
        "fd12::7",
        "FD12:0::7",
        "not an address",
        "",
    ],
)
def test_forbidden_addresses(address: str) -> None:
    assert is_forbidden(address, {"10.9.8.7", "fd12::7"})


@pytest.mark.parametrize("address", ["10.9.8.6", "192.168.1.1", "8.8.8.8", "fd12::8", "2001:db8::1", "100.64.0.1"])
def test_other_addresses_may_be_dialled(address: str) -> None:
    assert not is_forbidden(address, {"10.9.8.7", "fd12::7"})


def test_an_address_is_granted_by_ip_or_range_never_by_a_name() -> None:
    assert granted_by_address(resource(1, "127.0.0.1"), "127.0.0.1")
    assert granted_by_address(resource(1, "127.0.0.0/8"), "127.1.2.3")
    assert granted_by_address(resource(1, "::1"), "::1")
    assert not granted_by_address(resource(1, "127.0.0.1"), "127.0.0.2")
    assert not granted_by_address(resource(1, "10.0.0.0/8"), "127.0.0.1")
    assert not granted_by_address(resource(1, "localhost"), "localhost")
    assert not granted_by_address(resource(1, "*.internal"), "db.internal")
    # an alias of a range stands for no address
    assert not granted_by_address(resource(1, "127.0.0.0/8", alias="db.acme.example"), "db.acme.example")


def test_own_addresses_are_canonical_and_without_loopback() -> None:
    for text in own_addresses():
        address = parse_ip(text)
        assert address is not None
        assert str(address) == text
        assert not address.is_loopback
        assert is_forbidden(text, own_addresses())
