"""Settings of a captured machine: what is no network or user is refused by name; fast resources by name, address or alias."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis.strategies import lists, sampled_from, text

from klinket.client.capture.host.fast import FastResources
from klinket.client.capture.host.settings import HostSettings
from klinket.client.daemon.settings import Settings
from klinket.domain.errors import InvalidInput
from tests.unit.client.conftest import granted

NAMES = {"100.104.0.0/13", "fd6b:6c69:6e6b:e7::6468:0/109"}


@pytest.mark.parametrize(
    "source", ["", "lan", "10.0.0.1/8", "10.0.0.0/33", "fd00::/129", "fe80::1%eth0", "::1%}; flush ruleset; #"]
)
def test_a_source_that_is_no_network_is_refused(source: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        HostSettings(sources=(source,))
    assert caught.value.field == "gateway source"
    assert caught.value.hint


_PARTS = sampled_from(["10.0.0.0", "fe80::", "::1", "/8", "/10", "%", "}", ";", " ", "\n", "eth0", "#", '"'])


@given(lists(_PARTS | text(max_size=3), max_size=5).map("".join))
@example("::1%}; flush ruleset; #")
@example("fe80::/10%x")
def test_no_source_that_is_taken_says_anything_else_in_the_text_of_rules(source: str) -> None:
    with suppress(InvalidInput):
        assert all(re.fullmatch("[0-9a-fA-F:./]+", one) for one in HostSettings(sources=(source,)).sources)
    with suppress(InvalidInput):
        made = Settings().with_value("gateway-sources", source).gateway_sources
        assert all(re.fullmatch("[0-9a-f:./]+", one) for one in made)
        HostSettings(sources=made)


@pytest.mark.parametrize("user", [-1, 2**32])
def test_a_user_that_is_no_id_is_refused(user: int) -> None:
    with pytest.raises(InvalidInput):
        HostSettings(users=(user,))


def test_sources_and_users_are_taken() -> None:
    made = HostSettings(sources=("10.0.0.0/8", "192.0.2.7", "fd00::/64"), users=(0, 1000))
    assert len(made.sources) == 3


@pytest.mark.parametrize("wanted", ["resource 1", "10.9.0.0/16"])
def test_a_fast_range_is_fast_by_name_or_address(wanted: str) -> None:
    resources = [granted(1, "10.9.0.0/16"), granted(2, "10.9.0.5"), granted(3, "db.internal")]
    fast = FastResources(frozenset([wanted]))
    fast.follow(resources)
    assert fast.captured(resources) == {"10.9.0.0/16", *NAMES}
    assert fast.is_fast_address("10.9.0.6")
    assert not fast.is_fast_address("10.9.0.5"), "the resource that serves it decides"
    assert not fast.is_fast_name("db.internal")


def test_a_fast_name_is_fast_by_its_alias_too() -> None:
    resources = [granted(1, "db.internal", "db.alias"), granted(2, "other.internal")]
    fast = FastResources(frozenset(["db.alias"]))
    fast.follow(resources)
    assert fast.is_fast_name("db.internal")
    assert fast.is_fast_name("db.alias")
    assert not fast.is_fast_name("other.internal")
    assert fast.captured(resources) == NAMES


def test_all_are_fast_by_a_star_and_none_by_default() -> None:
    resources = [granted(1, "10.9.0.5"), granted(2, "*.internal"), granted(3, "127.0.0.1")]
    for wanted, expected in ((frozenset(["*"]), True), (frozenset[str](), False)):
        fast = FastResources(wanted)
        fast.follow(resources)
        assert fast.is_fast_name("db.internal") is expected
        assert fast.is_fast_address("10.9.0.5") is expected
        assert fast.captured(resources) == (NAMES | {"10.9.0.5"} if expected else NAMES)
    assert fast.is_fast_address("100.104.0.1"), "what stands for a fast name"
