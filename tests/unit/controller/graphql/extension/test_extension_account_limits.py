"""Limits of a service account in the Admin API: shown, set, set back."""

from __future__ import annotations

from typing import Any

import pytest

from klinket.controller.graphql.extension.resolvers.account_limits import NAMES
from klinket.domain.account_limits import DEFAULTS
from tests.unit.controller.running import Running

FIELDS = "serviceAccountName own sessions throttledFlows " + " ".join(NAMES.values())
SHOW = f"query ($a: ID!) {{ accountLimits(serviceAccountId: $a) {{ {FIELDS} }} }}"
SET = (
    "mutation ($a: ID!, $l: AccountLimitsInput!) { accountLimitsSet(serviceAccountId: $a, limits: $l) "
    f"{{ ok error entity {{ {FIELDS} }} }} }}"
)
SEATS = (
    "mutation ($k: ID!, $n: Int, $e: SeatsExceeded) { serviceKeySetSeats(id: $k, seats: $n, seatsExceeded: $e) "
    "{ ok error entity { seats seatsExceeded isCanary } } }"
)


async def change(controller: Running, account: str, **limits: Any) -> dict[str, Any]:
    answer = await controller.query(SET, extension=True, a=account, l=limits)
    return dict(answer["accountLimitsSet"])


async def test_an_account_begins_with_the_defaults(controller: Running) -> None:
    shown = (await controller.query(SHOW, extension=True, a=await controller.add_account()))["accountLimits"]
    assert (shown["own"], shown["sessions"], shown["throttledFlows"]) == ([], 0, 0)
    assert {name: shown[field] for name, field in NAMES.items()} == {name: getattr(DEFAULTS, name) for name in NAMES}


async def test_a_limit_left_out_stays_and_null_is_the_default_again(controller: Running) -> None:
    account = await controller.add_account()
    await change(controller, account, maxFlows=5, loginsPerSecond=0.5)
    after = (await change(controller, account, maxFlows=None))["entity"]
    assert (after["own"], after["loginsPerSecond"], after["maxFlows"]) == (["loginsPerSecond"], 0.5, DEFAULTS.max_flows)
    assert (await controller.query(SHOW, extension=True, a=account))["accountLimits"] == after


@pytest.mark.parametrize("field", sorted(NAMES.values()))
async def test_a_limit_out_of_its_bounds_is_refused_by_its_name_in_the_api(controller: Running, field: str) -> None:
    payload = await change(controller, await controller.add_account(), **{field: 0})
    assert payload["ok"] is False
    assert payload["error"].startswith(f"{field} must be ")


async def test_an_account_that_is_none_has_no_limits(controller: Running) -> None:
    assert (await controller.query(SHOW, extension=True, a="nonsense"))["accountLimits"] is None
    payload = await change(controller, "nonsense", maxFlows=5)
    assert "does not exist" in payload["error"]


async def test_seats_of_a_key_are_set_and_taken_away(controller: Running) -> None:
    key, _ = await controller.add_key(await controller.add_account())
    first = (await controller.query(SEATS, extension=True, k=key, n=2, e="REFUSE"))["serviceKeySetSeats"]
    assert first["entity"] == {"seats": 2, "seatsExceeded": "REFUSE", "isCanary": False}
    again = (await controller.query(SEATS, extension=True, k=key, n=3))["serviceKeySetSeats"]["entity"]
    assert (again["seats"], again["seatsExceeded"]) == (3, "REFUSE")  # what is not said stays
    assert (await controller.query(SEATS, extension=True, k=key))["serviceKeySetSeats"]["entity"]["seats"] is None
    assert "from 1 to" in (await controller.query(SEATS, extension=True, k=key, n=0))["serviceKeySetSeats"]["error"]
