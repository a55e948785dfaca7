"""Access tokens for the controller, and the proof of possession that goes with each use (security.md 10)."""

from __future__ import annotations

from dataclasses import dataclass

from klinket.domain.errors import InvalidToken
from klinket.domain.identifiers import Thumbprint
from klinket.wire import signing
from klinket.wire.identity import ClientIdentity, ConnectorIdentity, IdentityInvalid

TYP = "klinket-access+jwt"
PROOF_TYP = "klinket-proof+jwt"
AUDIENCE = "controller"
#: Seconds: no access token outlives a connector's certificate.
MAX_LIFETIME_SECONDS = 24 * 3600
PROOF_LIFETIME_SECONDS = 60


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """Who may attach: a client or a connector, holding the key with thumbprint `jkt`."""

    identity: ClientIdentity | ConnectorIdentity
    jkt: Thumbprint
    expires_at: float


def issue(
    key: signing.SigningKey, identity: ClientIdentity | ConnectorIdentity, jkt: Thumbprint, *, now: float, lifetime: float
) -> str:
    """Return an access token; `lifetime` in seconds."""
    claims = {
        "iss": identity.network,
        "aud": AUDIENCE,
        "sub": identity.uri,
        "iat": int(now),
        "exp": int(now + lifetime),
        "cnf": {"jkt": jkt},
    }
    return signing.sign(key, TYP, claims)


def verify(token: str, keys: signing.KeySet, *, network: str, now: float) -> AccessClaims:
    """Return who a valid access token was issued to; raises InvalidToken."""
    claims = signing.verify(token, keys, typ=TYP, issuer=network, audience=AUDIENCE, now=now, max_lifetime=MAX_LIFETIME_SECONDS)
    uri = signing.text(claims, "sub")
    identity: ClientIdentity | ConnectorIdentity
    try:
        identity = ConnectorIdentity.parse(uri) if "/connector/" in uri else ClientIdentity.parse(uri)
    except IdentityInvalid as error:
        raise InvalidToken("the access token names nobody") from error
    if identity.network != network:
        raise InvalidToken("the access token is of another network")
    return AccessClaims(identity, signing.confirmation(claims), float(signing.whole(claims, "exp")))


def sign_proof(key: signing.PrivateKey, nonce: str, *, now: float) -> str:
    """Return a proof over the controller's nonce with the key that the access token names."""
    claims = {"aud": AUDIENCE, "iss": "self", "nonce": nonce, "iat": int(now), "exp": int(now) + PROOF_LIFETIME_SECONDS}
    header = {"jwk": signing.public_jwk(key.public_key())}
    return signing.sign(signing.SigningKey("self", key), PROOF_TYP, claims, header)


def verify_proof(proof: str, *, jkt: Thumbprint, nonce: str, now: float) -> None:
    """Raise InvalidToken unless `proof` was made over `nonce` with the key whose thumbprint is `jkt`."""
    jwk = signing.unverified_header(proof).get("jwk")
    if not isinstance(jwk, dict):
        raise InvalidToken("the proof names no key")
    key = signing.public_key_from_jwk(jwk)
    if not signing.same(signing.thumbprint(key), jkt):
        raise InvalidToken("the proof was made with another key")
    claims = signing.verify_signature(proof, key, PROOF_TYP)
    signing.check_claims(claims, issuer="self", audience=AUDIENCE, now=now, max_lifetime=PROOF_LIFETIME_SECONDS)
    if not signing.same(signing.text(claims, "nonce"), nonce):
        raise InvalidToken("the proof is over another nonce")
