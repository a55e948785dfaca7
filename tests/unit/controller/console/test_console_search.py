"""Search over everything, by whoever may see it."""

from __future__ import annotations

import os

import pytest

from klinket.controller.app import api_tokens, groups
from klinket.controller.app.ports import Transaction
from klinket.controller.graphql.global_id import to_global_id
from tests.unit.controller.console.activity import ACTOR, Inventory
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only


@pytest.fixture
async def inventory(controller: Running) -> Inventory:
    def make(tx: Transaction) -> Inventory:
        groups.create(tx, ACTOR, name="Otters", security_policy_id=None)
        api_tokens.create(tx, ACTOR, name="otter pipeline", scopes=("read",), entropy=os.urandom)
        return Inventory(tx)

    return await controller.write(make)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ci-run", ("ci-runners", "/team/services/1")),
        ("ORDERS.int", ("Orders", "/network/resources/1")),
        ("brave", ("brave-otter", "/network/connectors/1")),
        ("offi", ("office", "/network/remote-networks/1")),
        ("kid-backup", ("backup key", "/team/services/3")),
        ("00000000-0000-4000-8000-000000000002", ("backup", "/team/services/3")),
        ("otters", ("Otters", "/team/groups/")),
        ("support@", ("Support", "/team/users/")),
        (to_global_id("Resource", 2), ("Billing", "/network/resources/2")),
    ],
)
async def test_everything_is_found_by_name_address_or_id(
    inventory: Inventory, support: Browser, text: str, found: tuple[str, str]
) -> None:
    answer = (await support.get("/search?q=" + text.replace("=", "%3D"))).text
    assert f'class="hit-name">{found[0]}' in answer
    assert f'href="/console{found[1]}' in answer


async def test_who_may_not_see_api_tokens_finds_none(inventory: Inventory, admin: Browser, support: Browser) -> None:
    assert "otter pipeline" in (await admin.get("/search?q=otter")).text
    assert "otter pipeline" not in (await support.get("/search?q=otter")).text
    assert "otter pipeline" not in (await support.get("/search?q=otter&kind=token")).text


async def test_while_typing_only_the_results_are_sent(inventory: Inventory, support: Browser) -> None:
    part = (await support.get("/search?q=ci", hx_request="true")).text
    assert "<html" not in part
    assert "ci-deploy" in part
    assert "Nothing has" in (await support.get("/search?q=zebra", hx_request="true")).text
    assert (await support.get("/search?q=+", hx_request="true")).text.strip() == ""


async def test_more_of_a_kind_is_one_link_away(controller: Running, support: Browser) -> None:
    await controller.write(lambda tx: [groups.create(tx, ACTOR, name=f"team {n}", security_policy_id=None) for n in range(9)])
    few = (await support.get("/search?q=team")).text
    assert few.count('class="hit-name"') == 6
    assert 'href="/console/search?q=team&amp;kind=group"' in few
    assert (await support.get("/search?q=team&kind=group")).text.count('class="hit-name"') == 9
