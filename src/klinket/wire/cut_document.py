"""A cut with all its receipts as one document under the controller's signature, for whoever has to prove what ended when.

Signed is the digest of the fields in SIGNED, as JSON: ASCII, keys sorted, no spaces. The key is one of the audit's: nothing
expires. Each receipt in it that was answered holds its connector's own signature besides.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klinket.domain.errors import CutAltered, InvalidToken, WrongSignature
from klinket.wire import receipt_token, signing

TYP = "klinket-cut-receipts+jwt"
AUDIENCE = "auditors"
#: What of a cut is signed: all of it. A document with another field beside these and its signature proves nothing.
SIGNED = ("id", "created_at", "created_at_ms", "scope", "what", "reason", "epoch", "revision", "actor", "receipts")


@dataclass(frozen=True, slots=True)
class ProvenCut:
    """What a valid document proves. `signed_at`: seconds since the epoch; `pending`: who had not answered until then."""

    network: str
    cut: int
    signed_at: int
    flows: int
    answered: tuple[str, ...]
    pending: tuple[str, ...]


def sign_document(key: signing.SigningKey, cut: Mapping[str, Any], *, network: str, now: float) -> str:
    """Return the controller's signature under a cut with its receipts."""
    claims = {
        "iss": network,
        "aud": AUDIENCE,
        "iat": int(now),
        "cut": cut["id"],
        "epoch": cut["epoch"],
        "rev": cut["revision"],
        "sha256": _digest(cut),
    }
    return signing.sign(key, TYP, claims)


def verify_document(cut: Mapping[str, Any], keys: signing.KeySet) -> ProvenCut:
    """Return what the document proves, where all of it is as the controller and the connectors signed it.

    Raises CutAltered where something differs, and InvalidToken where it is no such document or its key is not known.
    """
    token = cut.get("signature")
    if not isinstance(token, str) or any(name not in cut for name in SIGNED):
        raise InvalidToken("not a cut with its receipts and a signature", hint="make it: klinket admin cut show NUMBER --json")
    claims = _signed(token, keys.get(signing.unverified_header(token).get("kid")), TYP, "the controller")
    if claims.get("aud") != AUDIENCE:
        raise InvalidToken("made for somebody else (audience)")
    added = sorted(cut.keys() - {*SIGNED, "signature"})
    if added:
        raise CutAltered(f"the document has a field that nobody signed: {added[0][:40]!r}")
    if not hmac.compare_digest(signing.text(claims, "sha256", 64), _digest(cut)):
        raise CutAltered("the document is not as the controller signed it")
    network, answered, pending, flows = signing.text(claims, "iss"), [], [], 0
    for receipt in cut["receipts"]:
        if receipt["state"] == "pending":
            pending.append(str(receipt["connector"]))
        else:
            _check_connector(cut, receipt, network)
            answered.append(str(receipt["connector"]))
            flows += len(receipt["flows"])
    return ProvenCut(network, signing.whole(claims, "cut"), signing.whole(claims, "iat"), flows, tuple(answered), tuple(pending))


def _check_connector(cut: Mapping[str, Any], receipt: Mapping[str, Any], network: str) -> None:
    """Raise CutAltered unless the connector has signed its receipt. That the key is its own is the controller's word."""
    name, token = receipt["connector"], receipt["token"]
    jwk = signing.unverified_header(token).get("jwk") if isinstance(token, str) else None
    if not isinstance(jwk, dict):
        raise CutAltered(f"connector {name} has not signed its receipt")
    claims = _signed(token, signing.public_key_from_jwk(jwk), receipt_token.TYP, f"connector {name}")
    said = (claims.get("iss"), claims.get("cut"), claims.get("epoch"), claims.get("rev"), claims.get("stopped_at_ms"))
    told = (network, cut["id"], cut["epoch"], cut["revision"], receipt["stopped_at_ms"])
    if said != told or claims.get("flows_sha256") != receipt_token.digest(receipt["flows"]):
        raise CutAltered(f"the receipt of connector {name} says something else than its signature")


def _signed(token: str, key: signing.PublicKey, typ: str, signer: str) -> dict[str, Any]:
    try:
        return signing.verify_signature(token, key, typ)
    except WrongSignature as error:
        raise CutAltered(f"the signature of {signer} is not its own") from error


def _digest(cut: Mapping[str, Any]) -> str:
    document = {name: cut[name] for name in SIGNED}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()
