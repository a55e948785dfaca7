"""What a password must be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import InvalidInput
from klinket.domain.password import MAX_CHARS, MIN_CHARS, check_password


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("short", "5 characters, 12 are needed"),
        ("x" * 257, "257 characters"),
        ("aaaaaaaaaaaaaaaa", "first that are guessed"),
        ("Password2026!!!!", "first that are guessed"),
        ("administrator1", "first that are guessed"),
        ("qwertyuiop[]12", "first that are guessed"),
        ("ABCDEFGHIJKLMN", "first that are guessed"),
        ("ada@example.com1", "mostly your address"),
        ("Lovelace2026", "mostly your address"),
        ("half a character \ud800", "lone surrogate"),
    ],
)
def test_a_bad_password_is_refused_with_the_rule(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as refused:
        check_password(text, ("ada@example.com", "Lovelace"))
    assert refused.value.field == "password"
    assert text not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["correct zebra lamp forest", "Ωμέγα ένα δύο τρία", "ada likes long sentences", " spaces at both ends "]
)
def test_a_long_sentence_will_do(text: str) -> None:
    assert check_password(text, ("ada@example.com", "ada")) == text


@given(st.text(max_size=300))
def test_any_text_is_taken_as_it_is_or_refused_by_name(text: str) -> None:
    try:
        assert check_password(text) == text
        assert MIN_CHARS <= len(text) <= MAX_CHARS
    except InvalidInput as refused:
        assert refused.field == "password"
