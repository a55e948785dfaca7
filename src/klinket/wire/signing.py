"""ES256 signatures over JSON claims (RFC 7515, 7519), strict: one algorithm, keys from our own table, exact types.

Every kind of token has its own `typ`, audience and signing key; a verifier names exactly one of each.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from klinket.domain.errors import InvalidToken, WrongSignature
from klinket.domain.identifiers import Thumbprint

ALGORITHM = "ES256"
#: Characters of a token, unless its kind says otherwise.
MAX_TOKEN_CHARS = 16_384
#: Seconds by which two clocks may differ.
LEEWAY_SECONDS = 5.0
#: Whole numbers of claims, either sign: what a signed 64-bit field holds.
MAX_WHOLE = (1 << 63) - 1
#: Keys of one set.
MAX_KEYS = 64

_ES256 = ec.ECDSA(hashes.SHA256())

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


def generate_private_key() -> PrivateKey:
    """Return a new P-256 private key."""
    return ec.generate_private_key(ec.SECP256R1())


def private_key_to_pem(key: PrivateKey) -> str:
    """Return PKCS#8 PEM without encryption."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def private_key_from_pem(pem: str | bytes) -> PrivateKey:
    """Return the P-256 private key of a PEM text; raises InvalidToken, which never holds the text."""
    try:
        key = load_pem_private_key(pem.encode() if isinstance(pem, str) else pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidToken("not a private key in PEM (PKCS#8)") from error
    if not isinstance(key, PrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidToken("the private key is not ECDSA P-256")
    return key


def public_key_to_pem(key: PublicKey) -> str:
    """Return SubjectPublicKeyInfo PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_key_from_pem(pem: str | bytes) -> PublicKey:
    """Return the P-256 public key of a PEM text; raises InvalidToken."""
    try:
        key = load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidToken("not a public key in PEM") from error
    if not isinstance(key, PublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidToken("the public key is not ECDSA P-256")
    return key


def public_jwk(key: PublicKey) -> dict[str, str]:
    """Return the members of RFC 7517 that make up the key: kty, crv, x, y."""
    numbers = key.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": base64url(numbers.x.to_bytes(32, "big")),
        "y": base64url(numbers.y.to_bytes(32, "big")),
    }


def public_key_from_jwk(jwk: Mapping[str, object]) -> PublicKey:
    """Return the P-256 public key of a JWK; raises InvalidToken for another kind or a point off the curve."""
    try:
        if jwk["kty"] != "EC" or jwk["crv"] != "P-256":
            raise InvalidToken("the key is not ECDSA P-256")
        x, y = (from_base64url(str(jwk[name])) for name in ("x", "y"))
        if len(x) != 32 or len(y) != 32:
            raise InvalidToken("the key is not ECDSA P-256")
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1())
        return numbers.public_key()
    except (KeyError, ValueError) as error:
        raise InvalidToken("not a public key (JWK)") from error


def thumbprint(key: PublicKey) -> Thumbprint:
    """Return the RFC 7638 SHA-256 thumbprint of a public key, base64url."""
    canonical = json.dumps(public_jwk(key), sort_keys=True, separators=(",", ":"))
    return Thumbprint(base64url(hashlib.sha256(canonical.encode()).digest()))


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the id under which verifiers know its public half."""

    kid: str
    private_key: PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, kid: str) -> SigningKey:
        """Return a new key with this id."""
        return cls(kid, generate_private_key())

    @property
    def public_key(self) -> PublicKey:
        """Return the public half."""
        return self.private_key.public_key()


class KeySet:
    """Public keys by id; the only place a verifier takes keys from."""

    def __init__(self, keys: Mapping[str, PublicKey] | Iterable[tuple[str, PublicKey]] = ()) -> None:
        self._keys = dict(keys)

    @classmethod
    def from_jwks(cls, jwks: Mapping[str, object]) -> KeySet:
        """Return the set of `{"keys": [...]}`; raises InvalidToken for anything else."""
        listed = jwks.get("keys")
        if not isinstance(listed, list) or len(listed) > MAX_KEYS:
            raise InvalidToken("not a key set (JWKS)")
        keys = {}
        for jwk in listed:
            if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str):
                raise InvalidToken("a key of the set has no kid")
            keys[jwk["kid"]] = public_key_from_jwk(jwk)
        return cls(keys)

    def to_jwks(self) -> dict[str, object]:
        """Return the set as JSON object (RFC 7517 §5)."""
        return {"keys": [{**public_jwk(key), "kid": kid, "alg": ALGORITHM, "use": "sig"} for kid, key in self._keys.items()]}

    def get(self, kid: object) -> PublicKey:
        """Return the key with this id; raises InvalidToken."""
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise InvalidToken("signed with a key that is not known here")
        return key

    def __contains__(self, kid: object) -> bool:
        return kid in self._keys

    def __len__(self) -> int:
        return len(self._keys)


def sign(key: SigningKey, typ: str, claims: Mapping[str, object], header: Mapping[str, object] | None = None) -> str:
    """Return a compact JWS of the claims.

    Made here from the signature and base64url (RFC 7515 §3.1, RFC 7518 §3.4): a client signs and never verifies, and a JOSE
    library would be a tenth of what `klinket run` imports.
    """
    protected = {"alg": ALGORITHM, "typ": typ, "kid": key.kid, **(header or {})}
    parts = [base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (protected, claims)]
    signed = ".".join(parts)
    r, s = decode_dss_signature(key.private_key.sign(signed.encode(), _ES256))
    return f"{signed}.{base64url(r.to_bytes(32) + s.to_bytes(32))}"


def unverified_header(token: str, max_chars: int = MAX_TOKEN_CHARS) -> dict[str, Any]:
    """Return the header of a token nobody has verified: only to look a key up. Raises InvalidToken."""
    if not isinstance(token, str) or len(token) > max_chars or not token.isascii():
        raise InvalidToken("not a signed token of acceptable size")
    try:
        header = json.loads(from_base64url(token.split(".", 1)[0]))
    except (ValueError, RecursionError) as error:
        raise InvalidToken("not a signed token") from error
    if not isinstance(header, dict):
        raise InvalidToken("not a signed token")
    return header


def verify_signature(token: str, key: PublicKey, typ: str, max_chars: int = MAX_TOKEN_CHARS) -> dict[str, Any]:
    """Return the claims of a token signed with `key` and of exactly this `typ`; raises InvalidToken.

    WrongSignature, whatever else is wrong: who has not signed learns nothing more.
    """
    header = unverified_header(token, max_chars)
    try:
        claims = json.loads(_verified_payload(token, key))
    except (InvalidSignature, ValueError, RecursionError) as error:
        raise WrongSignature(f"the signature of the {typ} token is not valid") from error
    if header.get("alg") != ALGORITHM or header.get("typ") != typ or "crit" in header:
        raise InvalidToken(f"not a {typ} token")
    if not isinstance(claims, dict):
        raise InvalidToken(f"the {typ} token holds no claims")
    return claims


def _verified_payload(token: str, key: PublicKey) -> bytes:
    """Return what a compact JWS signs (RFC 7515 §5.2, RFC 7518 §3.4); raises InvalidSignature, or ValueError for another form.

    Made here, as `sign` is: a controller verifies two for each client that comes back, and a JOSE library takes half as long
    again. Nothing of the header has a say: algorithm and key are given. Each part has one spelling only.
    """
    signed, _, last = token.rpartition(".")
    first, _, payload = signed.partition(".")
    decoded = [from_base64url(part) for part in (first, payload, last)]
    if [base64url(part) for part in decoded] != [first, payload, last]:
        raise ValueError("not base64url in its one spelling")
    signature = decoded[2]
    if len(signature) != 64:
        raise ValueError("not a signature of P-256")
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    key.verify(encode_dss_signature(r, s), signed.encode("ascii"), _ES256)
    return decoded[1]


def verify(
    token: str,
    keys: KeySet,
    *,
    typ: str,
    issuer: str,
    audience: str,
    now: float,
    max_lifetime: float,
    max_chars: int = MAX_TOKEN_CHARS,
) -> dict[str, Any]:
    """Return the claims of a valid token; raises InvalidToken. `now` and `max_lifetime` in seconds."""
    key = keys.get(unverified_header(token, max_chars).get("kid"))
    claims = verify_signature(token, key, typ, max_chars)
    check_claims(claims, issuer=issuer, audience=audience, now=now, max_lifetime=max_lifetime)
    return claims


def check_claims(claims: Mapping[str, Any], *, issuer: str, audience: str, now: float, max_lifetime: float) -> None:
    """Raise InvalidToken unless issuer, audience and times are exactly right (RFC 7519 §4.1)."""
    if claims.get("iss") != issuer:
        raise InvalidToken("issued by somebody else")
    if claims.get("aud") != audience:
        raise InvalidToken("made for somebody else (audience)")
    issued, expires = whole(claims, "iat"), whole(claims, "exp")
    if now >= expires + LEEWAY_SECONDS:
        raise InvalidToken("the token has expired")
    if issued > now + LEEWAY_SECONDS:
        raise InvalidToken("the token is from the future", hint="check the clocks: 5 s of difference are allowed")
    if not 0 < expires - issued <= max_lifetime + 1:
        raise InvalidToken("the token lives longer than its kind may")


def whole(claims: Mapping[str, Any], name: str) -> int:
    """Return a claim that must be a whole number up to MAX_WHOLE; raises InvalidToken (booleans and texts are none)."""
    value = claims.get(name)
    if type(value) is not int or abs(value) > MAX_WHOLE:
        raise InvalidToken(f"claim {name} is not a whole number")
    return value


def text(claims: Mapping[str, Any], name: str, max_chars: int = 512) -> str:
    """Return a claim that must be a non-empty text; raises InvalidToken."""
    value = claims.get(name)
    if not isinstance(value, str) or not value or len(value) > max_chars:
        raise InvalidToken(f"claim {name} is not a text")
    return value


def confirmation(claims: Mapping[str, Any]) -> Thumbprint:
    """Return the thumbprint of `cnf.jkt` (RFC 7800); raises InvalidToken."""
    cnf = claims.get("cnf")
    if not isinstance(cnf, dict):
        raise InvalidToken("claim cnf is missing")
    return Thumbprint(text(cnf, "jkt", 64))


def same(one: str, other: str) -> bool:
    """Return whether two texts are equal, in constant time, whatever characters a peer chose for them."""
    # As bytes: compare_digest refuses texts that are not ASCII.
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


def base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515, 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Return the bytes of base64url without padding; raises ValueError."""
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
