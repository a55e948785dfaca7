"""id_tokens: which key signed them, and any text in place of one."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from klinket.controller.console.sign_in.oidc import provider as provider_module
from klinket.controller.console.sign_in.oidc.id_token import Expected, UnknownKey, identity_of, verify
from klinket.controller.console.sign_in.oidc.provider import Provider
from klinket.controller.oidc_settings import OidcSettings, parse_rules
from klinket.domain.errors import IdentityRefused

NOW = 1_800_000_000.0
EXPECTED = Expected("https://id.example", "klinket", "n")
CLAIMS = {"iss": "https://id.example", "aud": "klinket", "sub": "1", "nonce": "n", "exp": NOW + 60, "iat": NOW}
OLD = ECKey.generate_key("P-256", {"kid": "old", "use": "sig"})
NEW = RSAKey.generate_key(2048, {"kid": "new", "use": "sig"})


def signed(key: Any, algorithm: str, **header: Any) -> str:
    return jwt.encode({"alg": algorithm, "kid": key.kid, **header}, CLAIMS, key, algorithms=[algorithm])


@pytest.mark.parametrize(("key", "algorithm"), [(OLD, "ES256"), (NEW, "RS256"), (NEW, "PS256")])
def test_a_token_of_a_named_key_is_believed(key: Any, algorithm: str) -> None:
    assert verify(signed(key, algorithm), KeySet([OLD, NEW]), EXPECTED, now=NOW)["sub"] == "1"


def test_a_key_that_is_not_named_is_told_apart_so_that_keys_can_be_asked_for_again() -> None:
    with pytest.raises(UnknownKey):
        verify(signed(NEW, "RS256"), KeySet([OLD]), EXPECTED, now=NOW)


@pytest.mark.parametrize("algorithm", ["RS512", "HS256"])
def test_algorithms_that_are_not_listed_are_refused(algorithm: str) -> None:
    secret = OctKey.generate_key(256, {"kid": "old"})
    token = signed(secret if algorithm == "HS256" else NEW, algorithm)
    with pytest.raises(IdentityRefused):
        verify(token, KeySet([OLD, NEW]), EXPECTED, now=NOW)


@given(st.text(max_size=400) | st.binary(max_size=200).map(lambda raw: raw.hex() + "." + raw.hex() + "." + raw.hex()))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(IdentityRefused):
        verify(text, KeySet([OLD, NEW]), EXPECTED, now=NOW)


@given(
    st.dictionaries(
        st.sampled_from(["email", "email_verified", "name", "groups"]),
        st.none() | st.integers() | st.text() | st.lists(st.text()),
    )
)
def test_only_true_means_verified_and_odd_values_are_passed_over(claims: dict[str, Any]) -> None:
    identity = identity_of({**CLAIMS, **claims}, "groups")
    assert identity.email_verified is (claims.get("email_verified") is True)
    assert all(isinstance(one, str) for one in (identity.email, identity.name, *identity.values))


def test_keys_are_asked_for_again_when_they_were_rotated_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = OidcSettings(issuer="https://id.example", client_id="klinket", rules=parse_rules(["example.com"], [], None))
    provider = Provider(settings, "https://k.example/back", [ipaddress.ip_network("127.0.0.0/8")], lambda: NOW)
    served, asked, now = [OLD], [], [1_000.0]

    def answer(address: str, headers: object = None) -> dict[str, Any]:
        asked.append(address)
        if address.endswith("openid-configuration"):
            return {"issuer": "https://id.example", "jwks_uri": "https://id.example/jwks"}
        return {"keys": [key.as_dict(private=False) for key in served]}

    monkeypatch.setattr(provider, "_json", answer)
    monkeypatch.setattr(provider_module.time, "monotonic", lambda: now[0])
    assert provider._verified(signed(OLD, "ES256"), "n")
    served[:] = [NEW]
    with pytest.raises(UnknownKey):
        provider._verified(signed(NEW, "RS256"), "n")  # the keys were asked for just now
    now[0] += provider_module.LOOK_AGAIN_SECONDS + 1
    assert provider._verified(signed(NEW, "RS256"), "n")
    assert len([one for one in asked if one.endswith("jwks")]) == 2
