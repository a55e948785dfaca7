"""Which of the addresses that connectors tell clients are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.controller.direct_addresses import MAX_ADDRESSES, offered
from klinket.net.sockets import HostPort

FAR, HERE = "203.0.113.9", "127.0.0.1"


@pytest.mark.parametrize(("told", "channel_from", "kept"), [
    (["10.0.0.5:7443"], FAR, ("10.0.0.5:7443",)),
    (["[2001:db8::5]:7443"], FAR, ("[2001:db8::5]:7443",)),
    (["connector.example:7443"], FAR, ("connector.example:7443",)),
    (["10.0.0.5:7443", "10.0.0.5:7443"], FAR, ("10.0.0.5:7443",)),
    (["127.0.0.1:7443", "[::1]:7443", "localhost:7443"], FAR, ()),
    (["127.0.0.1:7443"], HERE, ("127.0.0.1:7443",)),
    (["0.0.0.0:7443", "224.0.0.1:7443", "169.254.169.254:80", "[fe80::1]:7443"], HERE, ()),
    (["127.1:80", "localhost.:80", "ip6-localhost:80", "2130706433:80", "0x7f.1:80", "0x7f000001:80", "a_b:80"], FAR, ()),
    (["10.0.0.5:0", "10.0.0.5", "10.0.0.5:99999", ":7443", "", "a b:7443", "x" * 300 + ":1"], FAR, ()),
])  # fmt: skip
def test_clients_are_told_where_a_connector_can_be(told: list[str], channel_from: str, kept: tuple[str, ...]) -> None:
    assert offered(told, channel_from) == kept


@given(st.lists(st.text(max_size=60), max_size=20), st.text(max_size=40))
def test_whatever_is_told_what_is_kept_can_be_dialled(told: list[str], channel_from: str) -> None:
    kept = offered(told, channel_from)
    assert len(kept) <= MAX_ADDRESSES
    assert all(HostPort.parse(address).port for address in kept)
