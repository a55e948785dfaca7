"""Signed receipts of cuts: a connector's word, under its own key, when it stopped releasing bytes (security.md 15).

Flows are signed by their number and digest, so that a receipt of ten thousand flows stays short.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from klinket.domain.cut import Cut
from klinket.domain.errors import InvalidToken
from klinket.domain.identifiers import Thumbprint
from klinket.wire import signing
from klinket.wire.control import CutFlow
from klinket.wire.identity import ConnectorIdentity

TYP = "klinket-receipt+jwt"
AUDIENCE = "controller"
#: Seconds for which a receipt is taken: an answer that got lost is given again when the connector attaches.
LIFETIME_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class ReceiptClaims:
    """What a receipt says. `stopped_at_ms`: the connector stopped releasing bytes then, ms since the epoch.

    `took_us`: microseconds from receiving the cut to that.
    """

    cut: int
    epoch: int
    revision: int
    stopped_at_ms: int
    took_us: int
    flows: int
    flows_sha256: str


def sign_receipt(
    key: signing.PrivateKey, identity: ConnectorIdentity, cut: Cut, flows: Sequence[CutFlow], *, stopped_at: float, took: float
) -> str:
    """Return the receipt of a cut, signed with the connector's identity key. `stopped_at`, `took`: seconds."""
    claims = {
        "iss": identity.network,
        "sub": identity.uri,
        "aud": AUDIENCE,
        "iat": int(stopped_at),
        "exp": int(stopped_at) + LIFETIME_SECONDS,
        "cut": cut.id,
        "epoch": cut.epoch,
        "rev": cut.revision,
        "stopped_at_ms": round(stopped_at * 1000),
        "took_us": round(took * 1_000_000),
        "flows": len(flows),
        "flows_sha256": digest([msgspec.to_builtins(flow) for flow in flows]),
    }
    header = {"jwk": signing.public_jwk(key.public_key())}
    return signing.sign(signing.SigningKey("self", key), TYP, claims, header)


def verify_receipt(token: str, identity: ConnectorIdentity, *, jkt: Thumbprint, now: float) -> ReceiptClaims:
    """Return what a receipt says; raises InvalidToken unless it was signed by this connector, with the key of `jkt`."""
    jwk = signing.unverified_header(token).get("jwk")
    if not isinstance(jwk, dict):
        raise InvalidToken("the receipt names no key")
    key = signing.public_key_from_jwk(jwk)
    if not signing.same(signing.thumbprint(key), jkt):
        raise InvalidToken("the receipt was signed with another key")
    claims = signing.verify_signature(token, key, TYP)
    signing.check_claims(claims, issuer=identity.network, audience=AUDIENCE, now=now, max_lifetime=LIFETIME_SECONDS)
    if signing.text(claims, "sub") != identity.uri:
        raise InvalidToken("the receipt is of another connector")
    return ReceiptClaims(
        signing.whole(claims, "cut"),
        signing.whole(claims, "epoch"),
        signing.whole(claims, "rev"),
        signing.whole(claims, "stopped_at_ms"),
        signing.whole(claims, "took_us"),
        signing.whole(claims, "flows"),
        signing.text(claims, "flows_sha256", 64),
    )


def digest(flows: Sequence[dict[str, Any]]) -> str:
    """Return the hex SHA-256 of flows as JSON: ASCII, keys sorted, no spaces. They can be checked against it at any time."""
    return hashlib.sha256(json.dumps(list(flows), sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()
