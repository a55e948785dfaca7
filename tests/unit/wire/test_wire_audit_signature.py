"""Signatures under the audit never expire, and are good for nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.audit_chain import BEGINNING, SignedAnchor, SignedBlock, SignedRange
from klinket.domain.errors import InvalidToken
from klinket.wire import audit_signature, signing
from klinket.wire.audit_signature import (
    audit_keys,
    sign_anchor,
    sign_block,
    sign_range,
    verify_anchor,
    verify_block,
    verify_range,
)
from tests.unit.wire.conftest import MODERATE

KEY = signing.SigningKey.generate("audit-1")
KEYS = signing.KeySet({KEY.kid: KEY.public_key})


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


BLOCK = SignedBlock("acme", 101, digest(100), tuple(digest(number) for number in range(101, 201)), 1_000)
RANGE = SignedRange("acme", 5, 9, digest(4), digest(9), None, 1_800_000_000_000, 1_000)
ANCHOR = SignedAnchor("acme", 100, digest(100), 1_800_000_000_000, 1_000)


def test_what_was_signed_is_read_again_however_long_ago_it_was() -> None:
    assert verify_block(sign_block(KEY, BLOCK), KEYS) == BLOCK
    assert verify_range(sign_range(KEY, RANGE), KEYS) == RANGE
    assert verify_anchor(sign_anchor(KEY, ANCHOR), KEYS) == ANCHOR


def test_the_largest_block_fits_in_a_token() -> None:
    assert len(BLOCK.digests) == audit_signature.MAX_EVENTS
    assert len(sign_block(KEY, BLOCK)) < signing.MAX_TOKEN_CHARS


def test_one_kind_is_not_taken_for_the_other() -> None:
    with pytest.raises(InvalidToken):
        verify_block(sign_range(KEY, RANGE), KEYS)
    with pytest.raises(InvalidToken):
        verify_range(sign_block(KEY, BLOCK), KEYS)
    for token in (sign_range(KEY, RANGE), sign_block(KEY, BLOCK)):
        with pytest.raises(InvalidToken):
            verify_anchor(token, KEYS)
    for verify in (verify_block, verify_range):
        with pytest.raises(InvalidToken):
            verify(sign_anchor(KEY, ANCHOR), KEYS)


@pytest.mark.parametrize(
    "wrong", [{"number": 0}, {"number": "5"}, {"digest": "AB" * 32}, {"digest": "ab"}, {"until": None}, {"aud": "others"}]
)
def test_an_anchor_whose_claims_are_not_what_they_must_be_is_refused(wrong: dict[str, Any]) -> None:
    claims = {"iss": "acme", "aud": audit_signature.AUDIENCE, "iat": 1, "number": 1, "digest": digest(1), "until": 2}
    assert verify_anchor(signing.sign(KEY, audit_signature.ANCHOR_TYP, claims), KEYS).number == 1
    with pytest.raises(InvalidToken):
        verify_anchor(signing.sign(KEY, audit_signature.ANCHOR_TYP, {**claims, **wrong}), KEYS)


@pytest.mark.parametrize("make", [lambda key: sign_block(key, BLOCK), lambda key: sign_range(key, RANGE)])
def test_another_key_of_the_same_name_signs_nothing(make: Callable[[signing.SigningKey], str]) -> None:
    token = make(signing.SigningKey.generate(KEY.kid))
    for verify in (verify_block, verify_range):
        with pytest.raises(InvalidToken):
            verify(token, KEYS)


def test_only_audit_keys_of_the_key_set_count() -> None:
    other = signing.SigningKey.generate("access-1")
    jwks: dict[str, Any] = signing.KeySet({KEY.kid: KEY.public_key, other.kid: other.public_key}).to_jwks()
    assert verify_block(sign_block(KEY, BLOCK), audit_keys(jwks)) == BLOCK
    with pytest.raises(InvalidToken):
        verify_block(sign_block(other, BLOCK), audit_keys(jwks))
    with pytest.raises(InvalidToken):
        audit_keys({"keys": "none"})


CLAIMS: dict[str, Any] = {
    "iss": "acme", "aud": "auditors", "iat": 1, "first": 1, "number": 1, "previous": BEGINNING, "digest": BEGINNING,
    "digests": "A" * 43,
}  # fmt: skip


def test_the_claims_of_the_next_test_are_good() -> None:
    assert verify_block(signing.sign(KEY, audit_signature.BLOCK_TYP, CLAIMS), KEYS).digests == (BEGINNING,)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "connectors"}, {"first": 0}, {"first": "1"}, {"number": 2}, {"digests": "A" * 42}, {"digests": "ü"},
        {"digests": ""}, {"digest": "ab" * 32}, {"previous": "short"}, {"previous": "Z" * 64}, {"iss": ""}, {"iat": None},
    ],
)  # fmt: skip
def test_a_signature_that_does_not_add_up_is_refused(changed: dict[str, Any]) -> None:
    token = signing.sign(KEY, audit_signature.BLOCK_TYP, {**CLAIMS, **changed})
    with pytest.raises(InvalidToken):
        verify_block(token, KEYS)


@pytest.mark.parametrize("changed", [{"first": 0}, {"last": 3}, {"filter": "some"}, {"from": "now"}, {"digest": None}])
def test_a_trailer_that_does_not_add_up_is_refused(changed: dict[str, Any]) -> None:
    claims = {
        "iss": "acme", "aud": "auditors", "iat": 1, "first": 5, "last": 9, "previous": digest(4), "digest": digest(9),
        "from": None, "to": None, "filter": "none",
    }  # fmt: skip
    assert verify_range(signing.sign(KEY, audit_signature.RANGE_TYP, claims), KEYS) == replace(RANGE, end_ms=None, time=1)
    with pytest.raises(InvalidToken):
        verify_range(signing.sign(KEY, audit_signature.RANGE_TYP, {**claims, **changed}), KEYS)


@MODERATE
@given(st.text(max_size=200) | st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=80) | st.none()))
def test_any_text_and_any_claims_are_signatures_or_refused(given_: str | dict[str, Any]) -> None:
    for typ, verify in (
        (audit_signature.BLOCK_TYP, verify_block),
        (audit_signature.RANGE_TYP, verify_range),
        (audit_signature.ANCHOR_TYP, verify_anchor),
    ):
        token = given_ if isinstance(given_, str) else signing.sign(KEY, typ, {**CLAIMS, **given_})
        try:
            verify(token, KEYS)
        except InvalidToken:
            pass
