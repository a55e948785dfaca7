"""Access tokens and the proofs that go with them, beyond what holds for every token (test_wire_tokens)."""

from __future__ import annotations

import pytest
from hypothesis import given

from klinket.domain.errors import InvalidToken
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ConnectorId, Kid, ServiceAccountUuid, SessionId, Thumbprint
from klinket.wire import access_token, signing
from klinket.wire.identity import ClientIdentity, ConnectorIdentity
from tests.unit.wire.conftest import ANY_TEXT, MODERATE, NOW, forge, parts

KEY = signing.SigningKey.generate("access-1")
KEYS = signing.KeySet({KEY.kid: KEY.public_key})
SESSION_KEY, STOLEN_BY = signing.generate_private_key(), signing.generate_private_key()
JKT = signing.thumbprint(SESSION_KEY.public_key())
CLIENT = ClientIdentity(
    "acme", Principal(ServiceAccountUuid("a1111111-2222-3333-4444-55555555555f"), Kid("kid-1"), SessionId("s" * 22))
)
CONNECTOR = ConnectorIdentity("acme", ConnectorId(7))


def issue(identity: ClientIdentity | ConnectorIdentity) -> str:
    return access_token.issue(KEY, identity, JKT, now=NOW, lifetime=3600)


@pytest.mark.parametrize("identity", [CLIENT, CONNECTOR], ids=["client", "connector"])
def test_a_token_says_who_holds_which_key_until_when(identity: ClientIdentity | ConnectorIdentity) -> None:
    claims = access_token.verify(issue(identity), KEYS, network="acme", now=NOW)
    assert claims == access_token.AccessClaims(identity, JKT, NOW + 3600)


@pytest.mark.parametrize(
    "sub",
    [
        "spiffe://other/connector/7",
        "spiffe://acme/connector/0",
        "spiffe://acme/connector/7/connector/8",
        "spiffe://acme/relay/7",
        "acme",
        CLIENT.uri + "/connector/7",
        CLIENT.uri.replace("acme", "other"),
        CLIENT.uri + "x",
    ],
)
def test_a_token_of_nobody_or_of_another_network_is_refused(sub: str) -> None:
    header, claims, _ = parts(issue(CONNECTOR))
    with pytest.raises(InvalidToken):
        access_token.verify(forge(KEY.private_key, header, {**claims, "sub": sub}), KEYS, network="acme", now=NOW)


def test_a_token_of_another_network_is_refused() -> None:
    with pytest.raises(InvalidToken):
        access_token.verify(issue(CONNECTOR), KEYS, network="other", now=NOW)


def proof(nonce: str = "nonce-1", key: signing.PrivateKey = SESSION_KEY) -> str:
    return access_token.sign_proof(key, nonce, now=NOW)


def refuse(text: str, *, nonce: str = "nonce-1", jkt: Thumbprint = JKT) -> None:
    with pytest.raises(InvalidToken):
        access_token.verify_proof(text, jkt=jkt, nonce=nonce, now=NOW)


def test_a_proof_is_good_for_its_nonce_and_key_only() -> None:
    access_token.verify_proof(proof(), jkt=JKT, nonce="nonce-1", now=NOW)
    refuse(proof(), nonce="nonce-2")
    refuse(proof(), nonce="")
    refuse(proof(key=STOLEN_BY))
    refuse(proof(), jkt=Thumbprint(""))
    refuse(proof(), jkt=Thumbprint("é" * 43))


@MODERATE
@given(ANY_TEXT)
def test_any_nonce_in_a_proof_is_compared_never_a_crash(nonce: str) -> None:
    header, claims, _ = parts(proof())
    refuse(forge(SESSION_KEY, header, {**claims, "nonce": nonce}), nonce="nonce-1")


def test_a_proof_signed_by_one_key_and_naming_another_is_refused() -> None:
    header, claims, _ = parts(proof())
    mine = signing.public_jwk(STOLEN_BY.public_key())
    refuse(forge(STOLEN_BY, header, claims))  # names the session key, signed with mine
    refuse(forge(SESSION_KEY, {**header, "jwk": mine}, claims))
    refuse(forge(STOLEN_BY, {**header, "jwk": mine}, claims))


@pytest.mark.parametrize("jwk", [None, "x", [], {}, {"kty": "oct", "k": "AAAA"}, {"kty": "EC", "crv": "P-256", "x": "", "y": ""}])
def test_a_proof_names_a_key(jwk: object) -> None:
    header, claims, _ = parts(proof())
    refuse(forge(SESSION_KEY, {**header, "jwk": jwk}, claims))


def test_a_proof_never_holds_the_private_key() -> None:
    header, _, _ = parts(proof())
    assert set(header["jwk"]) == {"kty", "crv", "x", "y"}
