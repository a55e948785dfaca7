"""Grant tokens: what one session may reach in one remote network, signed and short-lived (DESIGN §3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from klinket.domain.cut import Stamp
from klinket.domain.errors import InvalidToken, ProtocolError
from klinket.domain.grant import Principal
from klinket.domain.identifiers import Kid, RemoteNetworkId, ServiceAccountUuid, SessionId, Thumbprint
from klinket.domain.resource import Resource
from klinket.wire import signing
from klinket.wire.inventory import ResourceEntry, entry_of, resource_of

TYP = "klinket-grant+jwt"
#: Seconds a grant may live at the most, and does by default.
MAX_LIFETIME_SECONDS = 3600
DEFAULT_LIFETIME_SECONDS = 300
#: Characters: a grant may name thousands of resources.
MAX_GRANT_CHARS = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class GrantClaims:
    """A verified grant. `jkt`: the session key that must prove itself; `stamp`: the snapshot it was made from."""

    remote_network: RemoteNetworkId
    principal: Principal
    jkt: Thumbprint
    stamp: Stamp
    expires_at: float
    resources: tuple[Resource, ...]
    issued_at: float


def sign_grant(
    key: signing.SigningKey,
    *,
    network: str,
    remote_network: RemoteNetworkId,
    principal: Principal,
    jkt: Thumbprint,
    stamp: Stamp,
    resources: Sequence[Resource],
    now: float,
    lifetime: float,
) -> str:
    """Return a grant token of `lifetime` seconds for the resources, all of them in `remote_network`."""
    claims = {
        "iss": network,
        "aud": f"remote-network:{remote_network}",
        "sub": principal.account,
        "key": principal.key,
        "sid": principal.session,
        "cnf": {"jkt": jkt},
        "epoch": stamp[0],
        "rev": stamp[1],
        "iat": int(now),
        "exp": int(now + lifetime),
        "resources": [msgspec.to_builtins(entry_of(resource)) for resource in resources],
    }
    return signing.sign(key, TYP, claims)


def verify_grant(token: str, keys: signing.KeySet, *, network: str, remote_network: RemoteNetworkId, now: float) -> GrantClaims:
    """Return a valid grant for this remote network; raises InvalidToken."""
    claims = signing.verify(
        token,
        keys,
        typ=TYP,
        issuer=network,
        audience=f"remote-network:{remote_network}",
        now=now,
        max_lifetime=MAX_LIFETIME_SECONDS,
        max_chars=MAX_GRANT_CHARS,
    )
    try:
        entries = msgspec.convert(claims.get("resources"), list[ResourceEntry])
        resources = tuple(resource_of(entry) for entry in entries)
    except (msgspec.ValidationError, ProtocolError) as error:
        raise InvalidToken(f"the grant's resources: {error}") from error
    if any(resource.remote_network != remote_network for resource in resources):
        raise InvalidToken("the grant names a resource of another remote network")
    return GrantClaims(
        remote_network,
        Principal(
            ServiceAccountUuid(signing.text(claims, "sub", 36)),
            Kid(signing.text(claims, "key", 64)),
            SessionId(signing.text(claims, "sid", 22)),
        ),
        signing.confirmation(claims),
        (signing.whole(claims, "epoch"), signing.whole(claims, "rev")),
        float(signing.whole(claims, "exp")),
        resources,
        float(signing.whole(claims, "iat")),
    )
