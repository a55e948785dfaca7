"""Login assertions, beyond what holds for every token (test_wire_tokens)."""

from __future__ import annotations

import pytest

from klinket.domain.errors import AssertionStale, InvalidToken
from klinket.domain.identifiers import Kid, ServiceAccountUuid, Thumbprint
from klinket.wire import assertion, signing
from tests.unit.wire.conftest import NOW, forge, parts

ACCOUNT = ServiceAccountUuid("a1111111-2222-3333-4444-55555555555f")
URL = "https://acme.example.com/api/v4/headless/login"
KEY = signing.SigningKey.generate("kid-1")


def sign(**changes: str) -> str:
    arguments = {"account": ACCOUNT, "audience": URL, "jkt": Thumbprint("thumb"), "jti": "j1", **changes}
    return assertion.sign_assertion(KEY, now=NOW, **arguments)  # type: ignore[arg-type]


def verify(token: str, now: float = NOW, audience: str = URL, typ: str = assertion.LOGIN_TYP) -> assertion.Assertion:
    return assertion.verify_assertion(
        token, KEY.public_key, kid=Kid("kid-1"), account=ACCOUNT, audience=audience, now=now, typ=typ
    )


def test_an_assertion_says_who_with_which_key_for_which_session_key() -> None:
    assert verify(sign()) == assertion.Assertion(Kid("kid-1"), ACCOUNT, "j1", Thumbprint("thumb"), NOW + 60)
    assert assertion.unverified_kid(sign()) == "kid-1"


@pytest.mark.parametrize(
    "url", ["http://acme.example.com/api/v4/headless/login", URL + "/", "https://evil.example/api/v4/headless/login", ""]
)
def test_an_assertion_for_another_address_is_refused_with_advice(url: str) -> None:
    with pytest.raises(InvalidToken, match="audience") as refused:
        verify(sign(audience=url))
    assert "public URL" in refused.value.hint


def test_an_assertion_of_another_account_is_refused() -> None:
    header, claims, _ = parts(sign())
    for changes in ({"sub": "other"}, {"iss": "other"}, {"sub": "other", "iss": "other"}, {"sub": None}):
        with pytest.raises(InvalidToken, match="another service account"):
            verify(forge(KEY.private_key, header, {**claims, **changes}))


@pytest.mark.parametrize("seconds", [66, -6, 3600, -3600])
def test_a_wrong_clock_is_told_apart(seconds: float) -> None:
    with pytest.raises(AssertionStale) as refused:
        verify(sign(), NOW + seconds)
    assert "clock" in refused.value.hint
    assert f"{seconds:.0f} s" in refused.value.message


def test_a_minute_is_the_longest_life() -> None:
    header, claims, _ = parts(sign())
    with pytest.raises(InvalidToken, match="60 s"):
        verify(forge(KEY.private_key, header, {**claims, "exp": int(NOW) + 61}))


@pytest.mark.parametrize("jti", [None, "", 5, "x" * 129])
def test_an_assertion_has_an_id_of_its_own(jti: object) -> None:
    header, claims, _ = parts(sign())
    with pytest.raises(InvalidToken, match="jti"):
        verify(forge(KEY.private_key, header, {**claims, "jti": jti}))


@pytest.mark.parametrize("kid", [None, "", 5, ["kid-1"], "x" * 65])
def test_an_assertion_names_a_key(kid: object) -> None:
    header, claims, _ = parts(sign())
    with pytest.raises(InvalidToken):
        assertion.unverified_kid(forge(KEY.private_key, {**header, "kid": kid}, claims))


def test_ending_a_session_is_not_logging_in() -> None:
    ending = sign(typ=assertion.END_TYP)
    assert verify(ending, typ=assertion.END_TYP).jti == "j1"
    with pytest.raises(InvalidToken):
        verify(ending)
    with pytest.raises(InvalidToken):
        verify(sign(), typ=assertion.END_TYP)
