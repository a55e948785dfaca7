"""Signed heads: the controller's word how far it has come, kept by connectors, shown to it again (security.md 14).

A controller that is shown a head above its own was restored from a backup, and has forgotten cuts.
"""

from __future__ import annotations

from klinket.domain.cut import Stamp
from klinket.wire import signing

TYP = "klinket-head+jwt"
AUDIENCE = "controller"
#: Seconds for which keys of heads are kept: backups older than that are rare, and connectors are told anew all the time.
LIFETIME_SECONDS = 90 * 24 * 3600


def sign_head(key: signing.SigningKey, head: Stamp, *, network: str, now: float) -> str:
    """Return the signed form of a head."""
    claims = {
        "iss": network,
        "aud": AUDIENCE,
        "iat": int(now),
        "exp": int(now) + LIFETIME_SECONDS,
        "epoch": head[0],
        "rev": head[1],
    }
    return signing.sign(key, TYP, claims)


def verify_head(token: str, keys: signing.KeySet, *, network: str) -> Stamp:
    """Return a valid head; raises InvalidToken.

    No clock has a say: a head stays true however old it is, and one from the future is the word of a controller whose clock was
    ahead, or is behind now. To ignore it would let whoever sets the clock back restore a backup unnoticed.
    """
    key = keys.get(signing.unverified_header(token).get("kid"))
    claims = signing.verify_signature(token, key, TYP)
    issued = signing.whole(claims, "iat")
    signing.check_claims(claims, issuer=network, audience=AUDIENCE, now=issued, max_lifetime=LIFETIME_SECONDS)
    return signing.whole(claims, "epoch"), signing.whole(claims, "rev")
