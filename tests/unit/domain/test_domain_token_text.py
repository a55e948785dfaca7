"""Text secrets: prefix, 41 digits of randomness, 6 digits of checksum."""

from __future__ import annotations

import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain import token_text
from klinket.domain.errors import InvalidToken
from tests.unit.domain.conftest import MODERATE

PREFIXES = [
    token_text.API_TOKEN,
    token_text.CONNECTOR_ACCESS_TOKEN,
    token_text.CONNECTOR_REFRESH_TOKEN,
    token_text.RELAY_TOKEN,
]
DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM = st.binary(min_size=30, max_size=30)


def value(digits: str) -> int:
    number = 0
    for digit in digits:
        number = number * 62 + DIGITS.index(digit)
    return number


@MODERATE
@given(RANDOM, st.sampled_from(PREFIXES))
def test_a_token_is_its_randomness_and_checks_out(random: bytes, prefix: str) -> None:
    token = token_text.compose(prefix, random)
    assert token_text.check(token, prefix) == token
    digits = token.removeprefix(prefix)
    assert len(digits) == 47
    assert value(digits[:41]).to_bytes(30, "big") == random
    assert value(digits[41:]) == zlib.crc32(token[:-6].encode())


@pytest.mark.parametrize("fill", [b"\x00", b"\xff"])
def test_the_extremes_fit(fill: bytes) -> None:
    token = token_text.compose("kl_api_", fill * 30)
    assert len(token) == 7 + 47
    assert token_text.check(token, "kl_api_") == token


@pytest.mark.parametrize("size", [0, 29, 31])
def test_other_amounts_of_randomness_are_refused(size: int) -> None:
    with pytest.raises(ValueError):
        token_text.compose("kl_api_", bytes(size))


@MODERATE
@given(RANDOM, st.data())
def test_one_wrong_character_is_noticed_and_the_secret_not_told(random: bytes, data: st.DataObject) -> None:
    token = token_text.compose("kl_api_", random)
    at = data.draw(st.integers(7, len(token) - 1))
    wrong = data.draw(st.sampled_from(DIGITS + "é_ ").filter(lambda one: one != token[at]))
    mistyped = token[:at] + wrong + token[at + 1 :]
    with pytest.raises(InvalidToken) as refused:
        token_text.check(mistyped, "kl_api_")
    assert token[7:40] not in str(refused.value)


@MODERATE
@given(RANDOM, st.integers(7, 52))
def test_neighbours_that_changed_places_are_noticed(random: bytes, at: int) -> None:
    token = token_text.compose("kl_api_", random)
    swapped = token[:at] + token[at + 1] + token[at] + token[at + 2 :]
    if swapped != token:
        with pytest.raises(InvalidToken):
            token_text.check(swapped, "kl_api_")


@MODERATE
@given(RANDOM)
def test_cut_and_extended_texts_are_refused(random: bytes) -> None:
    token = token_text.compose("kl_api_", random)
    for wrong in [*(token[:end] for end in range(len(token))), token + "0", token + "\n", " " + token]:
        with pytest.raises(InvalidToken):
            token_text.check(wrong, "kl_api_")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("other", PREFIXES)
def test_no_kind_of_token_passes_for_another(prefix: str, other: str) -> None:
    token = token_text.compose(prefix, bytes(range(30)))
    relabelled = other + token.removeprefix(prefix)
    if prefix == other:
        assert token_text.check(relabelled, other) == token
        return
    for wrong in (token, relabelled):  # the checksum covers the prefix
        with pytest.raises(InvalidToken):
            token_text.check(wrong, other)


@MODERATE
@given(st.text(st.characters(codec=None), max_size=60).map(lambda text: "kl_api_" + text) | st.text(st.characters(codec=None)))
def test_arbitrary_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidToken):
        token_text.check(text, "kl_api_")
