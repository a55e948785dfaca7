"""Addresses of resources: IPs, ranges, names, wildcards, aliases (facts §4)."""

from __future__ import annotations

import ipaddress
import re
import time
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.address import AddressKind, ResourceAddress, canonical_host, parse_alias, parse_ip
from klinket.domain.errors import InvalidInput
from tests.unit.domain.conftest import MODERATE

LABEL = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
ANY_TEXT = st.one_of(
    st.text(st.characters(codec=None), max_size=40),
    st.text(alphabet="01289afx.:/*?-_%[] \n", max_size=24),
    st.text(alphabet="a.１２。٣ß\u200bİ-", max_size=12),
)


@pytest.mark.parametrize(
    ("text", "kind", "canonical"),
    [
        ("10.1.2.3", AddressKind.IP, "10.1.2.3"),
        (" 10.1.2.3\n", AddressKind.IP, "10.1.2.3"),
        ("10.1.2.3/32", AddressKind.IP, "10.1.2.3"),
        ("2001:DB8:0:0::1", AddressKind.IP, "2001:db8::1"),
        ("2001:db8::1/128", AddressKind.IP, "2001:db8::1"),
        ("::ffff:10.1.2.3", AddressKind.IP, "10.1.2.3"),
        ("::ffff:10.1.2.3/128", AddressKind.IP, "10.1.2.3"),
        ("10.0.0.0/8", AddressKind.CIDR, "10.0.0.0/8"),
        ("0.0.0.0/0", AddressKind.CIDR, "0.0.0.0/0"),
        ("10.0.0.0/255.255.255.0", AddressKind.CIDR, "10.0.0.0/24"),
        ("2001:DB8::/32", AddressKind.CIDR, "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", AddressKind.CIDR, "10.0.0.0/8"),
        ("db.internal", AddressKind.NAME, "db.internal"),
        ("DB.Internal.", AddressKind.NAME, "db.internal"),
        ("localhost", AddressKind.NAME, "localhost"),
        ("_ldap._tcp.acme", AddressKind.NAME, "_ldap._tcp.acme"),
        ("4chan.example", AddressKind.NAME, "4chan.example"),
        ("1.2.3.example", AddressKind.NAME, "1.2.3.example"),
        ("bücher.example", AddressKind.NAME, "xn--bcher-kva.example"),
        ("*.Internal", AddressKind.WILDCARD, "*.internal"),
        ("db?.internal", AddressKind.WILDCARD, "db?.internal"),
        ("*", AddressKind.WILDCARD, "*"),
        ("a" * 63 + ".b", AddressKind.NAME, "a" * 63 + ".b"),
    ],
)
def test_an_address_is_understood(text: str, kind: AddressKind, canonical: str) -> None:
    address = ResourceAddress.parse(text)
    assert (address.kind, address.canonical, address.text) == (kind, canonical, text.strip())
    assert address.api_type == ("IP" if kind in (AddressKind.IP, AddressKind.CIDR) else "DNS")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "..",
        "a..b",
        ".a",
        "a b",
        "-a.b",
        "a-.b",
        "http://a.b",
        "a.b:443",
        "a@b",
        "10.0.0.1/8",  # host bits set
        "2001:db8::1/32",
        "::ffff:10.0.0.1/104",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/",
        "/8",
        "db.internal/24",
        "10.0.0",
        "300.1.1.1",
        "10.0.0.1.",
        "1234",
        "0x7f.1",  # resolvers read it as 127.0.0.1
        "0x0A000001",
        "0x7f.0.0.1.",
        "１０.0.0.1",  # digits of another script become ASCII ones
        "fe80::1%eth0",
        "fe80::%eth0/64",
        "fe80::1%eth0/128",
        "[::1]",
        "::g",
        "a" * 64 + ".b",
        ".".join(["a" * 50] * 6),
        "*.bücher.example",
        "*.a b",
        "*..a",
        "\ud800.a",
    ],
)
def test_what_is_no_address_is_refused_with_the_text_clients_know(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ResourceAddress.parse(text)
    assert refused.value.field == "address"
    assert "Invalid IP or FQDN" in refused.value.message


def test_host_bits_are_named_in_the_hint() -> None:
    with pytest.raises(InvalidInput) as refused:
        ResourceAddress.parse("10.1.2.3/16")
    assert refused.value.hint
    assert "10.1.0.0/16" in refused.value.hint


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("*.a.b", "x.a.b", True),
        ("*.a.b", "x.y.a.b", True),
        ("*.a.b", "a.b", False),
        ("*.a.b", ".a.b", True),  # zero characters, though no canonical host begins with a dot
        ("*.a.b", "xa.b", False),
        ("*a.b", "a.b", True),
        ("db?.a", "db1.a", True),
        ("db?.a", "db.a", False),
        ("db?.a", "db12.a", False),
        ("db*.a", "db.a", True),
        ("db*.a", "db12.a", True),
        ("db*.a", "db.x.a", True),
        ("*", "anything.at.all", True),
        ("*", "10.0.0.1", False),
        ("*", "::1", False),
        ("10.0.0.*", "10.0.0.1", False),  # wildcards are of names
        ("a.b*", "axb", False),  # a dot is a dot
        ("**", "x", True),
        ("*?*", "x", True),
        ("?*?", "x", False),
        ("*ab*ab", "ab", False),
        ("*ab*ab", "abab", True),
        ("10.0.0.0/8", "10.255.255.255", True),
        ("10.0.0.0/8", "11.0.0.0", False),
        ("10.0.0.0/8", "ten.internal", False),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "10.0.0.1", False),
        ("::ffff:10.0.0.0/104", "10.1.1.1", True),
        ("::/0", "10.0.0.1", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("db.a", "db.a", True),
        ("db.a", "x.db.a", False),
    ],
)
def test_which_hosts_an_address_serves(pattern: str, host: str, expected: bool) -> None:
    assert ResourceAddress.parse(pattern).matches(host) is expected


def glob(pattern: str, host: str) -> bool:
    """Match by the definition, character by character."""

    @cache
    def rest(i: int, j: int) -> bool:
        if i == len(pattern):
            return j == len(host)
        if pattern[i] == "*":
            return rest(i + 1, j) or (j < len(host) and rest(i, j + 1))
        return j < len(host) and pattern[i] in ("?", host[j]) and rest(i + 1, j + 1)

    return rest(0, 0)


@MODERATE
@given(st.text("ab*?", min_size=1, max_size=9).filter(lambda text: "*" in text or "?" in text), st.text("ab", max_size=9))
def test_wildcards_match_as_defined(pattern: str, host: str) -> None:
    assert ResourceAddress.parse(pattern).matches(host) is glob(pattern, host)


@pytest.mark.parametrize("pattern", ["*a" * 25 + "b", "*?" * 25 + "b", "*" * 60 + "b", "*a?" * 20 + "b"])
def test_no_wildcard_takes_long(pattern: str) -> None:
    address = ResourceAddress.parse(pattern)
    host = ".".join(["a" * 62] * 4)
    start = time.process_time()
    assert not address.matches(host)
    assert time.process_time() - start < 1


@MODERATE
@given(ANY_TEXT)
def test_any_text_is_an_address_or_refused_by_name(text: str) -> None:
    try:
        address = ResourceAddress.parse(text)
    except InvalidInput:
        return
    assert ResourceAddress.parse(address.text) == address
    again = ResourceAddress.parse(address.canonical)
    assert (again.kind, again.canonical) == (address.kind, address.canonical)


@MODERATE
@given(st.one_of(st.ip_addresses().map(str), NAME, NAME.map(str.upper)))
def test_an_exact_address_serves_its_own_host(text: str) -> None:
    assert ResourceAddress.parse(text).matches(canonical_host(text))


@MODERATE
@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_a_range_serves_the_addresses_that_share_its_prefix(base: ipaddress.IPv4Address, bits: int, host: object) -> None:
    network = ipaddress.ip_network(f"{base}/{bits}", strict=False)
    shares = int(base) >> (32 - bits) == int(ipaddress.IPv4Address(str(host))) >> (32 - bits)
    assert ResourceAddress.parse(str(network)).matches(str(host)) is shares


@MODERATE
@given(ANY_TEXT)
def test_a_canonical_host_is_a_fixed_point_of_plain_form(text: str) -> None:
    try:
        host = canonical_host(text)
    except InvalidInput:
        return
    assert canonical_host(host) == host
    assert parse_ip(host) is not None or re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", host)
    assert host == host.lower()


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("DB.Internal.", "db.internal"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::FFFF:10.0.0.1", "10.0.0.1"),
        ("straße.example", "strasse.example"),
        ("a。b", "a.b"),
        ("0x7f.example", "0x7f.example"),
    ],
)
def test_a_host_has_one_form(text: str, host: str) -> None:
    assert canonical_host(text) == host


@pytest.mark.parametrize(
    "text",
    ["", ".", "1.2.3", "256.1.1.1", "0127.0.0.1", "2130706433", "0x7f000001", "１２７.1", "fe80::1%1", "a/b", "*.a", "a b"],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        canonical_host(text)
    assert refused.value.field == "host"


@pytest.mark.parametrize(("text", "alias"), [(" DB.Acme.internal. ", "db.acme.internal"), ("a.b", "a.b")])
def test_an_alias_is_a_plain_name_with_a_dot(text: str, alias: str) -> None:
    assert parse_alias(text) == alias


@pytest.mark.parametrize(
    "text", ["", "db", "db.", "10.0.0.1", "::1", "10.0", "１０.0.0.1", "*.a.b", "a?.b", "a..b", "a b.c", "-a.b"]
)
def test_other_aliases_are_refused_with_the_text_clients_know(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_alias(text)
    assert refused.value.field == "alias"
    assert "Alias must be a valid DNS" in refused.value.message


@MODERATE
@given(ANY_TEXT)
def test_any_text_is_an_alias_or_refused(text: str) -> None:
    try:
        alias = parse_alias(text)
    except InvalidInput:
        return
    assert parse_alias(alias) == alias == canonical_host(alias)
    assert "." in alias
    assert parse_ip(alias) is None


@pytest.mark.parametrize("text", ["fe80::1%eth0", "10.0.0.1%1", "", "10.0.0", "010.0.0.1", "a", " 10.0.0.1"])
def test_what_is_no_ip_reads_as_none(text: str) -> None:
    assert parse_ip(text) is None
