"""Limits of accounts: defaults, what is set for one, and bounds."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.account_limits import AT_CONNECTORS, BOUNDS, DEFAULTS, MAX_SEATS, check_limit, check_seats, limits_of
from klinket.domain.errors import InvalidInput


def test_every_limit_has_bounds_and_a_default_within_them() -> None:
    assert BOUNDS.keys() == asdict(DEFAULTS).keys()
    for name, value in asdict(DEFAULTS).items():
        assert (name == "bytes_per_second") == (value is None)  # no limit of it unless one is set
        assert value is None or check_limit(name, value, name) == value
    assert set(AT_CONNECTORS) < BOUNDS.keys()


def test_what_is_not_set_for_an_account_is_the_default() -> None:
    own = limits_of({"max_flows": 7})
    assert (own.max_flows, own.login_burst) == (7, DEFAULTS.login_burst)
    assert limits_of({}) == DEFAULTS


@pytest.mark.parametrize("name", sorted(BOUNDS))
@pytest.mark.parametrize("beyond", ["below", "above", "nan", "inf"])
def test_a_limit_out_of_its_bounds_names_the_field_and_the_bounds(name: str, beyond: str) -> None:
    least, most = BOUNDS[name]
    value = {"below": least / 2, "above": most + 1, "nan": math.nan, "inf": math.inf}[beyond]
    with pytest.raises(InvalidInput, match="from") as caught:
        check_limit(name, value, "theField")
    assert caught.value.field == "theField"


def test_what_is_counted_is_whole_and_what_is_a_rate_need_not_be() -> None:
    with pytest.raises(InvalidInput, match="whole"):
        check_limit("max_flows", 1.5, "max_flows")
    assert check_limit("logins_per_second", 0.5, "logins_per_second") == 0.5
    assert isinstance(check_limit("max_flows", 3.0, "max_flows"), int)


@given(seats=st.none() | st.integers(-(10**9), 10**9))
def test_a_key_has_as_many_seats_as_its_account_or_from_one_to_the_most(seats: int | None) -> None:
    if seats is None or 1 <= seats <= MAX_SEATS:
        assert check_seats(seats) == seats
    else:
        with pytest.raises(InvalidInput):
            check_seats(seats)
