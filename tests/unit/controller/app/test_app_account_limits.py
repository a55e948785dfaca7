"""Limits that are set for one account: audited, bounded, told to connectors where they concern them."""

from __future__ import annotations

import pytest

from klinket.controller.app import account_limits, service_accounts
from klinket.controller.app.ports import Transaction
from klinket.domain.account_limits import BOUNDS, DEFAULTS
from klinket.domain.errors import Conflict, InvalidInput
from tests.unit.controller.app.conftest import ADMIN, Inventory

FIELDS = {name: name for name in BOUNDS}


async def set_own(inventory: Inventory, **given: float | None) -> None:
    await inventory.write(lambda tx: account_limits.set_own(tx, ADMIN, inventory.ci, given, FIELDS))


async def test_a_limit_that_is_set_counts_and_the_others_stay_the_defaults(inventory: Inventory) -> None:
    await set_own(inventory, max_flows=5)
    await set_own(inventory, login_burst=3)
    limits = await inventory.read(lambda tx: account_limits.of(tx, inventory.ci.id))
    assert (limits.max_flows, limits.login_burst, limits.max_sessions) == (5, 3, DEFAULTS.max_sessions)
    await set_own(inventory, max_flows=None)
    assert await inventory.read(lambda tx: account_limits.own(tx, inventory.ci.id)) == {"login_burst": 3}
    await set_own(inventory, login_burst=None)
    assert await inventory.read(lambda tx: tx.account_limits.count()) == 0


async def test_each_change_is_audited_with_what_was_before_and_no_change_is_not(inventory: Inventory) -> None:
    await set_own(inventory, max_flows=5)
    await set_own(inventory, max_flows=9)
    count = await inventory.read(lambda tx: tx.audit.count())
    await set_own(inventory, max_flows=9)
    events = await inventory.read(lambda tx: tx.audit.find())
    assert len(events) == count
    assert events[-1].action == "edit"
    assert events[-1].targets[0]["name"] == "ci"
    assert events[-1].detail == {"limits": {"max_flows": 9}, "before": {"limits": {"max_flows": 5}}}


async def test_of_several_limits_one_wrong_one_changes_none(inventory: Inventory) -> None:
    with pytest.raises(InvalidInput):
        await set_own(inventory, max_flows=5, login_burst=0)
    assert await inventory.read(lambda tx: account_limits.of(tx, inventory.ci.id)) == DEFAULTS


async def test_connectors_are_told_only_of_accounts_whose_flows_are_limited_otherwise(inventory: Inventory) -> None:
    await set_own(inventory, login_burst=3)
    assert await inventory.read(account_limits.at_connectors) == ()
    await set_own(inventory, max_flows=5)
    ((account, own),) = await inventory.read(account_limits.at_connectors)
    assert (account, own) == (inventory.ci.uuid, {"login_burst": 3, "max_flows": 5})


async def test_limits_go_with_their_account(inventory: Inventory) -> None:
    await set_own(inventory, max_flows=5)
    await inventory.write(lambda tx: service_accounts.delete(tx, ADMIN, inventory.ci))
    assert await inventory.read(lambda tx: tx.account_limits.count()) == 0


async def test_so_many_accounts_have_limits_of_their_own_and_no_more(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_limits, "MAX_ACCOUNTS", 1)
    await set_own(inventory, max_flows=5)

    def another(tx: Transaction) -> None:
        account = service_accounts.create(tx, ADMIN, name="other", uuid="other")
        account_limits.set_own(tx, ADMIN, account, {"max_flows": 5}, FIELDS)

    with pytest.raises(Conflict, match="limits of their own"):
        await inventory.write(another)
    await set_own(inventory, max_flows=6)
