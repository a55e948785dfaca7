"""The controller's signatures under the audit: of its events as it goes, of each export, and in place of events it removed.

Nothing expires: an audit has to be provable for as long as anybody keeps it, so retired keys stay in the key set for ever.
"""

from __future__ import annotations

from typing import Any

from klinket.domain.audit_chain import SignedAnchor, SignedBlock, SignedRange
from klinket.domain.errors import InvalidToken
from klinket.wire import signing

BLOCK_TYP = "klinket-audit+jwt"
RANGE_TYP = "klinket-audit-export+jwt"
ANCHOR_TYP = "klinket-audit-anchor+jwt"
AUDIENCE = "auditors"
#: Events one signature covers at the most: their digests are in it.
MAX_EVENTS = 100
#: How ids of audit keys begin: in the controller's key set they are told by it.
KID_PREFIX = "audit-"
_DIGEST_BYTES = 32


def audit_keys(jwks: dict[str, Any]) -> signing.KeySet:
    """Return the audit keys of the controller's whole key set; raises InvalidToken."""
    listed = jwks.get("keys")
    if not isinstance(listed, list):
        raise InvalidToken("not a key set (JWKS)")
    own = [jwk for jwk in listed if isinstance(jwk, dict) and str(jwk.get("kid")).startswith(KID_PREFIX)]
    return signing.KeySet.from_jwks({"keys": own})


def sign_block(key: signing.SigningKey, block: SignedBlock) -> str:
    """Return the signed form; `digest`, of the last event, is in it for people: `digests` holds it as well."""
    claims = {
        "iss": block.network,
        "aud": AUDIENCE,
        "iat": block.time,
        "first": block.first,
        "number": block.last,
        "previous": block.previous,
        "digest": block.digests[-1],
        "digests": signing.base64url(b"".join(bytes.fromhex(digest) for digest in block.digests)),
    }
    return signing.sign(key, BLOCK_TYP, claims)


def verify_block(token: str, keys: signing.KeySet) -> SignedBlock:
    """Return what was signed; raises InvalidToken."""
    claims = _claims(token, keys, BLOCK_TYP)
    raw = _unbase64url(signing.text(claims, "digests", 2 * _DIGEST_BYTES * MAX_EVENTS))
    digests = tuple(raw[start : start + _DIGEST_BYTES].hex() for start in range(0, len(raw), _DIGEST_BYTES))
    first = signing.whole(claims, "first")
    block = SignedBlock(signing.text(claims, "iss"), first, _digest(claims, "previous"), digests, signing.whole(claims, "iat"))
    if not digests or len(raw) % _DIGEST_BYTES or first < 1 or signing.whole(claims, "number") != block.last:
        raise InvalidToken("the signature's events do not add up")
    if _digest(claims, "digest") != digests[-1]:
        raise InvalidToken("the signature names another last event")
    return block


def sign_range(key: signing.SigningKey, exported: SignedRange) -> str:
    """Return the signed trailer of an export."""
    claims = {
        "iss": exported.network,
        "aud": AUDIENCE,
        "iat": exported.time,
        "first": exported.first,
        "last": exported.last,
        "previous": exported.previous,
        "digest": exported.digest,
        "from": exported.begin_ms,
        "to": exported.end_ms,
        "filter": "none",
    }
    return signing.sign(key, RANGE_TYP, claims)


def verify_range(token: str, keys: signing.KeySet) -> SignedRange:
    """Return what was signed; raises InvalidToken."""
    claims = _claims(token, keys, RANGE_TYP)
    first, last = signing.whole(claims, "first"), signing.whole(claims, "last")
    if first < 1 or last < first - 1 or claims.get("filter") != "none":
        raise InvalidToken("the trailer is not understood")
    return SignedRange(
        signing.text(claims, "iss"),
        first,
        last,
        _digest(claims, "previous"),
        _digest(claims, "digest"),
        None if claims.get("from") is None else signing.whole(claims, "from"),
        None if claims.get("to") is None else signing.whole(claims, "to"),
        signing.whole(claims, "iat"),
    )


def sign_anchor(key: signing.SigningKey, anchor: SignedAnchor) -> str:
    """Return the signed anchor."""
    claims = {
        "iss": anchor.network,
        "aud": AUDIENCE,
        "iat": anchor.time,
        "number": anchor.number,
        "digest": anchor.digest,
        "until": anchor.until_ms,
    }
    return signing.sign(key, ANCHOR_TYP, claims)


def verify_anchor(token: str, keys: signing.KeySet) -> SignedAnchor:
    """Return what was signed; raises InvalidToken."""
    claims = _claims(token, keys, ANCHOR_TYP)
    number = signing.whole(claims, "number")
    if number < 1:
        raise InvalidToken("the anchor stands for no event")
    until, time = signing.whole(claims, "until"), signing.whole(claims, "iat")
    return SignedAnchor(signing.text(claims, "iss"), number, _digest(claims, "digest"), until, time)


def _claims(token: str, keys: signing.KeySet, typ: str) -> dict[str, Any]:
    key = keys.get(signing.unverified_header(token).get("kid"))
    claims = signing.verify_signature(token, key, typ)
    if claims.get("aud") != AUDIENCE:
        raise InvalidToken("made for somebody else (audience)")
    return claims


def _digest(claims: dict[str, Any], name: str) -> str:
    value = signing.text(claims, name, 2 * _DIGEST_BYTES)
    if len(value) != 2 * _DIGEST_BYTES or set(value) - set("0123456789abcdef"):
        raise InvalidToken(f"claim {name} is not a digest")
    return value


def _unbase64url(text: str) -> bytes:
    try:
        return signing.from_base64url(text)
    except ValueError as error:
        raise InvalidToken("claim digests is not base64url") from error
