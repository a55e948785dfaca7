"""Assertions signed with a service key (RFC 7523): one to log in, one to end a session or the key's use (security.md 9, 20)."""

from __future__ import annotations

from dataclasses import dataclass

from klinket.domain.errors import AssertionStale, InvalidToken
from klinket.domain.identifiers import Kid, ServiceAccountUuid, Thumbprint
from klinket.wire import signing

LOGIN_TYP = "klinket-login+jwt"
END_TYP = "klinket-end+jwt"
REVOKE_TYP = "klinket-revoke+jwt"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: Seconds an assertion lives at the most.
MAX_LIFETIME_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Assertion:
    """A verified assertion: `jkt` is the thumbprint of the session key it speaks for."""

    kid: Kid
    account: ServiceAccountUuid
    jti: str
    jkt: Thumbprint
    expires_at: float


def sign_assertion(
    key: signing.SigningKey, account: str, audience: str, jkt: Thumbprint, *, now: float, jti: str, typ: str = LOGIN_TYP
) -> str:
    """Return an assertion of the service key `key` (its kid is the key id) for `audience`, the URL it is sent to."""
    claims = {
        "iss": account,
        "sub": account,
        "aud": audience,
        "iat": int(now),
        "exp": int(now) + MAX_LIFETIME_SECONDS,
        "jti": jti,
        "cnf": {"jkt": jkt},
    }
    return signing.sign(key, typ, claims)


def unverified_kid(token: str) -> Kid:
    """Return the key id that an unverified assertion names; raises InvalidToken."""
    kid = signing.unverified_header(token).get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= 64:
        raise InvalidToken("the assertion names no key")
    return Kid(kid)


def verify_assertion(
    token: str,
    public_key: signing.PublicKey,
    *,
    kid: Kid,
    account: ServiceAccountUuid,
    audience: str,
    now: float,
    typ: str = LOGIN_TYP,
) -> Assertion:
    """Return the verified assertion; raises AssertionStale for its times and InvalidToken for all else."""
    claims = signing.verify_signature(token, public_key, typ)
    if claims.get("sub") != account or claims.get("iss") != account:
        raise InvalidToken("the assertion is of another service account")
    if claims.get("aud") != audience:
        raise InvalidToken(
            "the assertion was made for another address (audience)",
            hint="the key file's network must be the controller's public URL, without a proxy's name in between",
        )
    issued, expires = signing.whole(claims, "iat"), signing.whole(claims, "exp")
    if not 0 < expires - issued <= MAX_LIFETIME_SECONDS:
        raise InvalidToken(f"an assertion lives {MAX_LIFETIME_SECONDS} s at the most")
    if now >= expires + signing.LEEWAY_SECONDS or issued > now + signing.LEEWAY_SECONDS:
        raise AssertionStale(f"the assertion's time is off by {now - issued:.0f} s", time_ms=round(now * 1000))
    return Assertion(kid, account, signing.text(claims, "jti", 128), signing.confirmation(claims), float(expires))
