"""resolv.conf(5) is read as the C library does, and rewritten with one resolver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.net import resolv_conf
from klinket.net.resolv_conf import DEFAULT_RESOLVER


@pytest.mark.parametrize(
    ("text", "resolvers", "kept"),
    [
        ("", (DEFAULT_RESOLVER,), ()),
        ("nameserver 10.0.0.2\n", ("10.0.0.2",), ()),
        ("nameserver 10.0.0.2\nnameserver fe80::1%eth0\n", ("10.0.0.2", "fe80::1%eth0"), ()),
        ("  nameserver\t10.0.0.2 # comment\n", ("10.0.0.2",), ()),
        ("search a b\noptions ndots:2\n", (DEFAULT_RESOLVER,), ("search a b", "options ndots:2")),
        ("# nameserver 10.9.9.9\n; nameserver 10.9.9.9\nnameserver\nsortlist 10.0.0.0\n", (DEFAULT_RESOLVER,), ()),
        ("search a.internal", (DEFAULT_RESOLVER,), ("search a.internal",)),
    ],
)  # fmt: skip
def test_a_file_is_read(text: str, resolvers: tuple[str, ...], kept: tuple[str, ...]) -> None:
    found = resolv_conf.parse(text)
    assert (found.resolvers, found.kept) == (resolvers, kept)


@given(st.text("namesrvoptidh .#;:%\t\n0189", max_size=300))
def test_the_rewritten_file_names_one_resolver_and_keeps_the_rest(text: str) -> None:
    found = resolv_conf.parse(text)
    again = resolv_conf.parse(found.with_resolver("100.95.0.251"))
    assert again.resolvers == ("100.95.0.251",)
    assert again.kept == found.kept
