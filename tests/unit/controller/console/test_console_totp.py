"""Codes of authenticator apps: the RFC's examples, and which moments a code belongs to."""

from __future__ import annotations

import re
from base64 import b32decode
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.controller.console.sign_in.totp import STEP_SECONDS, as_text, code_at, picture, step_of

SECRET = b"12345678901234567890"
secrets = st.binary(min_size=20, max_size=20)
moments = st.integers(1_000, 4_000_000_000)


@pytest.mark.parametrize(
    ("now", "code"),
    [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (2_000_000_000, "279037"), (20_000_000_000, "353130")],
)
def test_codes_are_those_of_the_rfc(now: int, code: str) -> None:
    assert code_at(SECRET, now) == code  # RFC 6238, appendix B: the last six of eight digits
    assert step_of(SECRET, code, now) == now // STEP_SECONDS


@given(secrets, moments, st.integers(-5, 5))
def test_a_code_belongs_to_its_step_and_is_taken_one_step_around_it(secret: bytes, now: int, off: int) -> None:
    found = step_of(secret, code_at(secret, now), now + off * STEP_SECONDS)
    if abs(off) <= 1:
        assert found is not None
        assert code_at(secret, found * STEP_SECONDS) == code_at(secret, now)
    elif found is not None:  # six digits meet by chance
        assert code_at(secret, found * STEP_SECONDS) == code_at(secret, now)
        assert abs(found - (now // STEP_SECONDS + off)) <= 1


@given(st.text(max_size=20), moments)
def test_any_text_is_a_code_or_none(text: str, now: int) -> None:
    found = step_of(SECRET, text, now)
    assert found is None or re.fullmatch(r"\s*(\d\s*){6}", text)


@given(secrets)
def test_a_secret_is_typed_as_it_is_shown(secret: bytes) -> None:
    assert b32decode(as_text(secret).replace(" ", "")) == secret


def test_the_picture_is_svg_without_styles_or_scripts() -> None:
    root = ElementTree.fromstring(picture(SECRET, "ada@example.com", "acme"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    for part in root.iter():
        assert part.tag.rpartition("}")[2] in ("svg", "path", "g", "rect")
        assert not {"style", "onload", "href"} & part.attrib.keys()
