"""Recovery codes as they are shown, typed and stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import InvalidInput
from klinket.domain.recovery_code import RANDOM_BYTES, code_hash, compose, parse

randoms = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


@given(randoms, randoms)
def test_different_randoms_make_different_codes(one: bytes, other: bytes) -> None:
    assert (compose(one) == compose(other)) == (one == other)


@given(randoms)
def test_a_code_is_read_as_people_type_it(random: bytes) -> None:
    code = compose(random)
    assert parse(code) == code
    assert parse(f"  {code.upper().replace('-', ' ')} ") == code
    assert parse(code.replace("0", "O").replace("1", "l").replace("-", "")) == code


@given(st.text(max_size=60))
def test_any_text_is_a_code_or_refused_without_repeating_it(text: str) -> None:
    try:
        assert len(parse(text)) == 19
    except InvalidInput as refused:
        assert refused.field == "code"


def test_the_same_code_of_two_users_is_stored_differently() -> None:
    code = compose(b"\x00" * RANDOM_BYTES)
    assert code == "0000-0000-0000-0000"
    assert code_hash(1, code) != code_hash(2, code)
    with pytest.raises(ValueError, match="9 random bytes"):
        compose(b"\x00" * 9)
