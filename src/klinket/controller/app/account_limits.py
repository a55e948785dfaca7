"""Limits of service accounts: the defaults, and what is set for one account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from klinket.controller.app.audit import account_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ServiceAccountRow
from klinket.domain.account_limits import AT_CONNECTORS, DEFAULTS, AccountLimits, check_limit, limits_of
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import Conflict
from klinket.domain.identifiers import ServiceAccountUuid

#: Accounts that may have limits of their own: connectors are told of all of them in one message.
MAX_ACCOUNTS = 2_000


def own(tx: Transaction, account: int) -> dict[str, float]:
    """Return what is set for one account, by the names of domain.account_limits.AccountLimits."""
    found = tx.account_limits.find(service_account_id=account)
    return dict(found[0].own) if found else {}


def changed_at(tx: Transaction, account: int) -> int:
    """Return when limits of an account were changed last (milliseconds since the epoch); 0: none is set."""
    found = tx.account_limits.find(service_account_id=account)
    return found[0].updated_at_ms if found else 0


def of(tx: Transaction, account: int, defaults: AccountLimits = DEFAULTS) -> AccountLimits:
    """Return what counts for one account. `defaults`: of the network, for what is not set."""
    return limits_of(own(tx, account), defaults)


def set_own(
    tx: Transaction, actor: Actor, account: ServiceAccountRow, given: Mapping[str, float | None], fields: Mapping[str, str]
) -> None:
    """Set limits of an account, None: the default again; those not given stay. `fields`: how the caller calls each limit.

    They count from the next login and the next flow on, bandwidth at once; nothing is ended. Raises InvalidInput, Conflict.
    """
    found = tx.account_limits.find(service_account_id=account.id)
    before = dict(found[0].own) if found else {}
    after = dict(before)
    for name, value in given.items():
        if value is None:
            after.pop(name, None)
        else:
            after[name] = check_limit(name, value, fields[name])
    if after == before:
        return
    if not found:
        if tx.account_limits.count() >= MAX_ACCOUNTS:
            raise Conflict(
                f"{MAX_ACCOUNTS} service accounts have limits of their own, and no more can", hint="set some back to the defaults"
            )
        tx.account_limits.add(service_account_id=account.id, own=after)
    elif after:
        tx.account_limits.change(found[0].id, own=after)
    else:
        tx.account_limits.remove(id=found[0].id)
    tx.bump()
    detail: dict[str, Any] = {"limits": after, "before": {"limits": before}}
    tx.record(AuditEvent(AuditAction.EDIT, actor, (account_target(account),), detail))


def forget(tx: Transaction, account: int) -> None:
    """Forget what is set for an account that is deleted."""
    tx.account_limits.remove(service_account_id=account)


def at_connectors(tx: Transaction) -> tuple[tuple[ServiceAccountUuid, dict[str, float]], ...]:
    """Return what is set for accounts whose limits at connectors are not the defaults, by id."""
    rows = [row for row in tx.account_limits.find() if not row.own.keys().isdisjoint(AT_CONNECTORS)]
    uuids = {row.id: row.uuid for row in tx.service_accounts.find(id={row.service_account_id for row in rows})} if rows else {}
    return tuple((ServiceAccountUuid(uuids[row.service_account_id]), row.own) for row in rows)


def as_json(limits: AccountLimits) -> dict[str, Any]:
    """Return limits by name."""
    return asdict(limits)
