"""Relay tickets: the controller's word that a client or connector may use one relay (security.md 18)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from klinket.domain.errors import InvalidToken
from klinket.wire import signing

TYP = "klinket-ticket+jwt"
MAX_LIFETIME_SECONDS = 24 * 3600
#: Connectors one client's ticket may name.
MAX_CONNECTORS = 1_024
#: Characters of a ticket's id.
MAX_ID_CHARS = 64

KeySet = signing.KeySet
LEEWAY_SECONDS = signing.LEEWAY_SECONDS


class TicketRole(Enum):
    """Who holds a ticket; the roles cannot be swapped."""

    CLIENT = "client"
    CONNECTOR = "connector"


@dataclass(frozen=True, slots=True)
class TicketClaims:
    """`holder`: a session id, or `connector:ID`; `connectors`: whom a client may be paired with, or a connector itself.

    `account`: the service account whose share of the relay all its sessions divide; "" for a connector. `id` is the ticket's
    own: a relay takes it once.
    """

    role: TicketRole
    holder: str
    relay: int
    connectors: tuple[int, ...]
    expires_at: float
    id: str
    account: str = ""

    @property
    def shared_by(self) -> str:
        """Return whose share of the relay is used: the account's, else the holder's own."""
        return self.account or self.holder


def sign_ticket(
    key: signing.SigningKey,
    *,
    network: str,
    role: TicketRole,
    holder: str,
    relay: int,
    connectors: Sequence[int],
    now: float,
    lifetime: float,
    id: str,
    account: str = "",
) -> str:
    """Return a ticket for one relay; `lifetime` in seconds, `id` random and never used before; `account` of a client only."""
    claims = {
        "iss": network,
        "aud": f"relay:{relay}",
        "sub": holder,
        "role": role.value,
        "connectors": list(connectors),
        "jti": id,
        "iat": int(now),
        "exp": int(now + lifetime),
    }
    if account:
        claims["account"] = account
    return signing.sign(key, TYP, claims)


def verify_ticket(token: str, keys: signing.KeySet, *, network: str, relay: int, now: float) -> TicketClaims:
    """Return a valid ticket for this relay; raises InvalidToken."""
    claims = signing.verify(
        token, keys, typ=TYP, issuer=network, audience=f"relay:{relay}", now=now, max_lifetime=MAX_LIFETIME_SECONDS
    )
    connectors = claims.get("connectors")
    if not isinstance(connectors, list) or len(connectors) > MAX_CONNECTORS or any(type(one) is not int for one in connectors):
        raise InvalidToken("the ticket's connectors are not understood")
    try:
        role = TicketRole(claims.get("role"))
    except ValueError as error:
        raise InvalidToken("the ticket's role is not understood") from error
    if role is TicketRole.CONNECTOR and len(connectors) != 1:
        raise InvalidToken("a connector's ticket names itself only")
    holder, id = signing.text(claims, "sub"), signing.text(claims, "jti", MAX_ID_CHARS)
    account = signing.text(claims, "account") if "account" in claims else ""
    return TicketClaims(role, holder, relay, tuple(connectors), float(signing.whole(claims, "exp")), id, account)
