"""Signed cuts: controllers sign them, connectors verify, keep and apply them again (security.md 13, 14)."""

from __future__ import annotations

from typing import Any

import msgspec

from klinket.domain.cut import Cut, CutScope, ScopeKind
from klinket.domain.errors import InvalidToken, ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ConnectorId, CutId, Kid, ResourceId, ServiceAccountUuid, SessionId
from klinket.wire import signing
from klinket.wire.inventory import ResourceEntry, entry_of, resource_of

TYP = "klinket-cut+jwt"
AUDIENCE = "connectors"
#: Seconds for which a cut can be presented again: far longer than any grant.
LIFETIME_SECONDS = 7 * 24 * 3600


def sign_cut(key: signing.SigningKey, cut: Cut, *, network: str) -> str:
    """Return the signed form of a cut."""
    scope = cut.scope
    claims: dict[str, Any] = {
        "iss": network,
        "aud": AUDIENCE,
        "iat": int(cut.issued_at),
        "exp": int(cut.issued_at) + LIFETIME_SECONDS,
        "id": cut.id,
        "epoch": cut.epoch,
        "rev": cut.revision,
        "reason": cut.reason.value,
        "kind": scope.kind.value,
    }
    for name in ("account", "key", "session", "resource", "connector"):
        if (value := getattr(scope, name)) is not None:
            claims[name] = value
    if cut.narrowed is not None:
        claims["narrowed"] = msgspec.to_builtins(entry_of(cut.narrowed))
    return signing.sign(key, TYP, claims)


def verify_cut(token: str, keys: signing.KeySet, *, network: str, now: float) -> Cut:
    """Return a valid cut; raises InvalidToken.

    One from the future is the word of a controller whose clock was ahead, and counts: it only takes away, and what it ends may be
    grants of that time.
    """
    key = keys.get(signing.unverified_header(token).get("kid"))
    claims = signing.verify_signature(token, key, TYP)
    now = max(now, signing.whole(claims, "iat"))
    signing.check_claims(claims, issuer=network, audience=AUDIENCE, now=now, max_lifetime=LIFETIME_SECONDS)
    try:
        kind = ScopeKind(claims.get("kind"))
        reason = FlowFailure(claims.get("reason"))
        narrowed = claims.get("narrowed")
        remaining = None if narrowed is None else resource_of(msgspec.convert(narrowed, ResourceEntry))
    except (ValueError, msgspec.ValidationError, ProtocolError) as error:
        raise InvalidToken("the cut is not understood") from error
    return Cut(
        CutId(signing.whole(claims, "id")),
        _scope(kind, claims),
        signing.whole(claims, "epoch"),
        signing.whole(claims, "rev"),
        reason,
        float(signing.whole(claims, "iat")),
        remaining,
    )


def _scope(kind: ScopeKind, claims: dict[str, Any]) -> CutScope:
    match kind:
        case ScopeKind.ACCOUNT:
            return CutScope.of_account(ServiceAccountUuid(signing.text(claims, "account")))
        case ScopeKind.KEY:
            return CutScope.of_key(Kid(signing.text(claims, "key")))
        case ScopeKind.SESSION:
            return CutScope.of_session(SessionId(signing.text(claims, "session")))
        case ScopeKind.RESOURCE:
            return CutScope.of_resource(ResourceId(signing.whole(claims, "resource")))
        case ScopeKind.ACCESS:
            account = ServiceAccountUuid(signing.text(claims, "account"))
            return CutScope.of_access(account, ResourceId(signing.whole(claims, "resource")))
        case ScopeKind.CONNECTOR:
            return CutScope.of_connector(ConnectorId(signing.whole(claims, "connector")))
