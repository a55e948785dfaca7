"""Where a name may not lead: loopback, link-local, metadata services, multicast, the connector itself."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        "0.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "168.63.129.16",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fec0::1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "64:ff9b::10.9.8.7",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "::127.0.0.1",
        "::169.254.169.254",
        "2001:0:7f00:1::",  # Teredo, by its server
        "2001:0:808:808::80ff:fffe",  # Teredo, by its client 127.0.0.1
        "2001:db8::5efe:127.0.0.1",
        "2001:db8::200:5efe:169.254.169.254",
        "not an address",
        "",
    ],
)
def test_forbidden_addresses(address: str) -> None:
    assert is_forbidden(address, {"10.9.8.7", "fd12::7"})


@pytest.mark.parametrize(
    "address",
    [
        "10.9.8.6",
        "192.168.1.1",
        "8.8.8.8",
        "fd12::8",
        "2001:db8::1",
        "100.64.0.1",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "168.63.129.17",
        "128.0.0.1",
    ],
)
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


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("0.0.0.0/0", "127.0.0.1"),
        ("0.0.0.0/0", "169.254.169.254"),
        ("96.0.0.0/3", "127.0.0.1"),
        ("168.63.0.0/16", "168.63.129.16"),
        ("::/0", "::1"),
        ("::/0", "fe80::1"),
        ("64:ff9b::/96", "64:ff9b::7f00:1"),
        ("2002::/16", "2002:7f00:1::"),
    ],
)
def test_a_wide_range_grants_no_special_address(address: str, host: str) -> None:
    assert not granted_by_address(resource(1, address), host)
    assert is_forbidden(host, ())


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.0/24", "127.0.0.1"),
        ("169.254.169.254", "169.254.169.254"),
        ("169.254.0.0/16", "169.254.169.254"),
        ("168.63.129.16", "168.63.129.16"),
        ("fd00:ec2::/64", "fd00:ec2::23"),
        ("64:ff9b::7f00:1", "64:ff9b::7f00:1"),
    ],
)
def test_a_single_address_and_a_range_of_special_ones_grant_them(address: str, host: str) -> None:
    assert granted_by_address(resource(1, address), host)


@given(st.integers(0, 2**128 - 1).map(lambda number: str(ipaddress.IPv6Address(number))))
def test_ipv6_around_a_forbidden_ipv4_is_forbidden_whatever_the_form(text: str) -> None:
    low = int(ipaddress.IPv6Address(text)) & 0xFFFF_FFFF
    inner = ipaddress.IPv4Address(low)
    forms = [ipaddress.IPv6Address(base | low) for base in (0xFFFF << 32, 0x64FF9B << 96)]
    forms.append(ipaddress.IPv6Address(0x2002 << 112 | low << 80 | 1))
    if low > 1:
        forms.append(ipaddress.IPv6Address(low))
    for form in forms:
        assert is_forbidden(str(form), ()) == is_forbidden(str(inner), ()), form


def test_own_addresses_are_canonical_and_without_loopback() -> None:
    for text in own_addresses():
        address = parse_ip(text)
        assert address is not None
        assert str(address) == text
        assert not address.is_loopback
        assert is_forbidden(text, own_addresses())
