"""id_tokens (OpenID Connect Core 3.1.3.7), verified with joserfc: one issuer, one audience, one nonce, named algorithms."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from klinket.controller.app.oidc_identities import MAX_SUBJECT_CHARS, Identity
from klinket.domain.errors import IdentityRefused

ALGORITHMS = ("RS256", "PS256", "ES256")
LEEWAY_SECONDS = 5.0
#: Seconds since a token was issued: it comes straight from the provider.
MAX_AGE_SECONDS = 600.0
MAX_TOKEN_CHARS = 32_768
#: Values of the role claim that are looked at, and their length.
MAX_VALUES = 1_000
MAX_VALUE_CHARS = 255


class UnknownKey(IdentityRefused):
    """The token was signed by a key that the provider did not name when it was asked last."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say. `nonce`: of the sign-in that it answers; `since`: since when the person must have signed in there.

    `since` is in seconds since the epoch; None: whenever.
    """

    issuer: str
    audience: str
    nonce: str
    since: float | None = None


def verify(raw: str, keys: KeySet, expected: Expected, *, now: float) -> dict[str, Any]:
    """Return the claims of an id_token; raises IdentityRefused. `now`: seconds since the epoch."""
    if len(raw) > MAX_TOKEN_CHARS:
        raise IdentityRefused("the identity provider's token is too long")
    try:
        claims = dict(jwt.decode(raw, keys, algorithms=list(ALGORITHMS)).claims)
    except InvalidKeyIdError as error:
        raise UnknownKey("the identity provider's token is signed by a key that it does not name") from error
    except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise IdentityRefused("the identity provider's token is not signed by one of its keys") from error
    _check_source(claims, expected)
    _check_times(claims, now)
    if expected.since is not None:
        _check_sign_in(claims, expected.since)
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), expected.nonce.encode()):
        raise IdentityRefused("the identity provider's token answers another sign-in")
    return claims


def _check_source(claims: Mapping[str, Any], expected: Expected) -> None:
    if claims.get("iss") != expected.issuer:
        raise IdentityRefused("the token comes from another identity provider")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or expected.audience not in audiences:
        raise IdentityRefused("the identity provider's token is for another application")
    party = claims.get("azp")
    if (len(audiences) > 1 or party is not None) and party != expected.audience:
        raise IdentityRefused("the identity provider's token was given to another application")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT_CHARS or not subject.isprintable():
        raise IdentityRefused("the identity provider's token names no account")


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    ends, issued, begins = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in (ends, issued, begins)):
        raise IdentityRefused("the identity provider's token has no times")
    assert isinstance(ends, int | float)
    assert isinstance(issued, int | float)
    if not now < ends + LEEWAY_SECONDS:
        raise IdentityRefused("the identity provider's token has expired", hint="begin again; look at both clocks if it stays")
    if not now - MAX_AGE_SECONDS <= issued <= now + LEEWAY_SECONDS or begins > now + LEEWAY_SECONDS:
        raise IdentityRefused("the identity provider's token is not of now", hint="look at both clocks")


def _check_sign_in(claims: Mapping[str, Any], since: float) -> None:
    """Check `auth_time` (OpenID Connect Core 3.1.3.7, 13): `prompt` and `max_age` can be taken out of the address on the way."""
    at = claims.get("auth_time")
    if not isinstance(at, int | float) or isinstance(at, bool):
        raise IdentityRefused("the identity provider does not say when you signed in there", hint="prove who you are another way")
    if not at >= since - LEEWAY_SECONDS:
        raise IdentityRefused("you have not signed in anew at the identity provider", hint="enter your credentials there again")


def identity_of(claims: Mapping[str, Any], role_claim: str) -> Identity:
    """Return what verified claims say. Only `true` means that an e-mail address is verified."""
    given = claims.get(role_claim)
    values = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    email, name = claims.get("email"), claims.get("name")
    return Identity(
        issuer=str(claims["iss"]),
        subject=str(claims["sub"]),
        email=email if isinstance(email, str) else "",
        email_verified=claims.get("email_verified") is True,
        name=name if isinstance(name, str) else "",
        values=frozenset(one for one in values[:MAX_VALUES] if isinstance(one, str) and len(one) <= MAX_VALUE_CHARS),
    )
