"""ServiceKey: last use, origin and rotation of the contract's ServiceAccountKey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from klinket.controller.app import key_hygiene, service_keys
from klinket.controller.app.api_tokens import PROVISION, WRITE
from klinket.controller.app.rows import ServiceAccountRow, ServiceKeyRow
from klinket.controller.app.service_keys import KeyOrigin, KeyUse
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.key_text import create_key, new_key
from klinket.controller.graphql.mutation import mutation, query
from klinket.domain.account_limits import SeatsExceeded
from klinket.domain.errors import InvalidInput
from klinket.domain.service_key import SECONDS_PER_DAY, KeyState, is_idle
from klinket.wire import signing

TYPE = "ServiceAccountKey"
#: Keys one question about expiry looks at, those that expire first.
MAX_EXPIRING = 10_000
MAX_EXPIRING_DAYS = 366


@query
def _one(context: RequestContext, id: str) -> ServiceKeyRow | None:
    number = number_of(id, TYPE)
    return context.tx.service_keys.get(number) if number is not None else None


@query
def _many(context: RequestContext, filter: dict[str, Any] | None = None, **page: Any) -> dict[str, Any]:
    return context.connection(_filtered(context, filter or {}), page)


def _filtered(context: RequestContext, given: dict[str, Any]) -> Sequence[ServiceKeyRow]:
    tx = context.tx
    account, within = given.get("serviceAccountId"), given.get("expiringWithinDays")
    number = None if account is None else number_of(account, "ServiceAccount") or 0
    rows: Sequence[ServiceKeyRow]
    if within is not None:
        if not 0 <= within <= MAX_EXPIRING_DAYS:
            raise InvalidInput("expiringWithinDays", f"expiringWithinDays is 0 to {MAX_EXPIRING_DAYS}")
        until = tx.now_ms + within * SECONDS_PER_DAY * 1000
        near = tx.service_keys.after("expires_at_ms", tx.now_ms, MAX_EXPIRING, revoked_at_ms=None)
        rows = [row for row in near if (row.expires_at_ms or 0) <= until and number in (None, row.service_account_id)]
    else:
        rows = tx.service_keys.all() if number is None else tx.service_keys.find(service_account_id=number)
    if (states := given.get("status")) is not None:
        rows = [row for row in rows if row.state(tx.now_ms).value in states]
    if (idle := given.get("isIdle")) is not None:
        rows = [row for row in rows if _is_idle(row, tx.now_ms) is idle]
    return rows


def _is_idle(row: ServiceKeyRow, now_ms: int) -> bool:
    last = None if row.last_used_ms is None else row.last_used_ms / 1000
    return row.state(now_ms) is KeyState.ACTIVE and not row.is_canary and is_idle(row.created_at_ms / 1000, last, now_ms / 1000)


def _exceeded(word: str | None) -> SeatsExceeded:
    return SeatsExceeded.ALERT if word is None else SeatsExceeded(word.lower())


@mutation(PROVISION)
def _generate(
    context: RequestContext,
    serviceAccountId: str,
    expirationTime: int,
    name: str | None = None,
    seats: int | None = None,
    seatsExceeded: str | None = None,
    isCanary: bool | None = None,
) -> dict[str, Any]:
    use = KeyUse(seats, _exceeded(seatsExceeded), bool(isCanary))
    row, token = create_key(context, serviceAccountId, expirationTime, name, use=use)
    return {"entity": row, "token": token}


@mutation(WRITE)
def _set_seats(context: RequestContext, id: str, seats: int | None = None, seatsExceeded: str | None = None) -> dict[str, Any]:
    row = service_keys.get(context.tx, number_of(id, TYPE), id)
    exceeded = _exceeded(seatsExceeded or row.seats_exceeded)
    return {"entity": service_keys.set_seats(context.tx, context.caller.actor, row, seats, exceeded)}


@mutation(PROVISION)
def _register(
    context: RequestContext,
    serviceAccountId: str,
    publicKey: str,
    expirationTime: int,
    name: str | None = None,
    seats: int | None = None,
    seatsExceeded: str | None = None,
) -> dict[str, Any]:
    use = KeyUse(seats, _exceeded(seatsExceeded))
    row, key_file = create_key(context, serviceAccountId, expirationTime, name, public_key=publicKey, use=use)
    return {"entity": row, "keyFile": key_file}


@mutation(PROVISION)
def _rotate(
    context: RequestContext,
    id: str,
    expirationTime: int,
    overlapHours: int | None = None,
    name: str | None = None,
    publicKey: str | None = None,
) -> dict[str, Any]:
    old = service_keys.get(context.tx, number_of(id, TYPE), id)
    made = new_key(context.services, publicKey)
    row = key_hygiene.rotate(
        context.tx,
        context.caller.actor,
        old,
        days=expirationTime,
        overlap_hours=key_hygiene.DEFAULT_OVERLAP_HOURS if overlapHours is None else overlapHours,
        name=name,
        kid=made.kid,
        public_key=made.public_key,
        origin=KeyOrigin.CONTROLLER if publicKey is None else KeyOrigin.OWNER,
    )
    account = service_keys.account_of(context.tx, row)
    return {"entity": row, "token": made.file_text(context.services, account, row)}


def _account(row: ServiceKeyRow, info: Any) -> ServiceAccountRow:
    account: ServiceAccountRow = info.context.siblings.parent(row, "service_account_id", info.context.tx.service_accounts)
    return account


def maker(actor: dict[str, Any]) -> dict[str, Any]:
    """Return who did something as the API shows it."""
    return {"type": actor["type"], "id": actor.get("id"), "name": (actor.get("info") or {}).get("name")}


def _use(row: ServiceKeyRow, _: Any) -> dict[str, Any] | None:
    return None if row.last_used_ms is None else {"time": row.last_used_ms, **(row.last_used_by or {})}


FIELDS = {
    "Query.serviceKey": _one,
    "Query.serviceKeys": _many,
    "Mutation.serviceKeyGenerate": _generate,
    "Mutation.serviceKeySetSeats": _set_seats,
    "Mutation.serviceKeyRegister": _register,
    "Mutation.serviceKeyRotate": _rotate,
    "ServiceKey.id": lambda row, _: to_global_id(TYPE, row.id),
    "ServiceKey.name": lambda row, _: row.name,
    "ServiceKey.status": lambda row, info: row.state(info.context.tx.now_ms).value,
    "ServiceKey.serviceAccountId": lambda row, _: to_global_id("ServiceAccount", row.service_account_id),
    "ServiceKey.serviceAccountName": lambda row, info: _account(row, info).name,
    "ServiceKey.createdAt": lambda row, _: row.created_at_ms,
    "ServiceKey.createdBy": lambda row, _: maker(row.created_by),
    "ServiceKey.expiresAt": lambda row, _: row.expires_at_ms,
    "ServiceKey.revokedAt": lambda row, _: row.revoked_at_ms,
    "ServiceKey.origin": lambda row, _: row.origin.upper(),
    "ServiceKey.keyId": lambda row, _: row.kid,
    "ServiceKey.thumbprint": lambda row, _: signing.thumbprint(signing.public_key_from_pem(row.public_key)),
    "ServiceKey.lastUse": _use,
    "ServiceKey.isIdle": lambda row, info: _is_idle(row, info.context.tx.now_ms),
    "ServiceKey.replacesId": lambda row, _: None if row.replaces_key_id is None else to_global_id(TYPE, row.replaces_key_id),
    "ServiceKey.overlapEndsAt": lambda row, _: row.overlap_ends_ms,
    "ServiceKey.seats": lambda row, _: row.seats,
    "ServiceKey.seatsExceeded": lambda row, _: row.seats_exceeded.upper(),
    "ServiceKey.isCanary": lambda row, _: row.is_canary,
}
