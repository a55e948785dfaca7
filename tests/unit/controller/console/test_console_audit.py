"""Activity > Audit: filters, before and after, an export that proves itself, and the verification on the page."""

from __future__ import annotations

import re

import pytest

from klinket.controller import audit_signing
from klinket.controller.app import audit_check, resources
from klinket.controller.trust import KeyPurpose
from klinket.domain.audit_verification import verify
from klinket.wire.audit_export import read_records
from klinket.wire.audit_signature import verify_block, verify_range
from tests.unit.controller.console.activity import ACTOR, Inventory
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only
AUDIT = "/activity/audit"


@pytest.fixture
async def inventory(controller: Running) -> Inventory:
    return await controller.write(Inventory)


def shown(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'<th scope="row"[^>]*><a href="/console/activity/audit/(\d+)"', text)]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("actor=ada@", ["Orders", "brave-otter"]),
        ("actor=192.0.2.10&type=resource", ["Orders", "Billing"]),
        ("action=create&type=connector", ["brave-otter"]),
        ("object=billing", ["Billing"]),
        ("object=ci-&type=serviceAccountKey&time=24h", ["ci-runners key", "ci-deploy key"]),
    ],
)
async def test_filters_find_by_who_did_what_to_what(inventory: Inventory, support: Browser, query: str, words: list[str]) -> None:
    text = (await support.get(f"{AUDIT}?{query}")).text
    assert shown(text)
    for word in words:
        assert word in text
    assert "backup key" not in text or "actor=ada" in query


@pytest.mark.parametrize("query", ["actor=nobody", "action=delete", "object=%25", "object=%22", "to=2001-01-01", "type=sink"])
async def test_a_filter_that_nothing_meets_says_so(inventory: Inventory, support: Browser, query: str) -> None:
    text = (await support.get(f"{AUDIT}?{query}")).text
    assert shown(text) == []
    assert "Nothing fits" in text


async def test_places_lead_through_all_events(controller: Running, inventory: Inventory, admin: Browser) -> None:
    for number in range(60):
        await admin.post("/network/remote-networks/new", {"name": f"n{number}", "location": "AWS"})
    last = (await controller.last_event()).number
    first = (await admin.get(AUDIT)).text
    older = re.search(r'href="(\?before=[^"]+)"', first)
    assert older is not None
    second = (await admin.get(AUDIT + older.group(1))).text
    assert (shown(first) + shown(second))[:100] == list(range(last, max(0, last - 100), -1))


async def test_an_edit_shows_before_and_after(controller: Running, inventory: Inventory, support: Browser) -> None:
    tcp = {"policy": "RESTRICTED", "ports": [{"start": 80, "end": 90}]}
    change = {"name": "Shop", "protocols": {"allowIcmp": True, "tcp": tcp, "udp": {"policy": "ALLOW_ALL", "ports": []}}}
    await controller.write(lambda tx: resources.update(tx, ACTOR, inventory.resources[0], change))
    number = next(row.number for row in await controller.audit() if "before" in row.detail)
    text = (await support.get(f"{AUDIT}/{number}")).text
    assert "<del>Orders</del>" in text
    assert "<ins>Shop</ins>" in text
    assert "<ins>80–90</ins>" in text
    assert "<del>orders.internal" not in text  # what is the same is not marked


async def test_markup_in_what_others_wrote_is_text(controller: Running, inventory: Inventory, admin: Browser) -> None:
    await controller.write(lambda tx: resources.update(tx, ACTOR, inventory.resources[0], {"name": "<i>x</i>"}))
    number = (await controller.last_event()).number
    for path in (AUDIT, f"{AUDIT}/{number}", AUDIT + "?object=<i>", "/activity/flows?service=<i>", "/search?q=<i>"):
        assert "<i>" not in (await admin.get(path)).text


async def test_an_export_by_the_console_proves_itself(controller: Running, inventory: Inventory, support: Browser) -> None:
    answer = await support.get(AUDIT + "/export?format=json")
    keys = controller.trust.keys[KeyPurpose.AUDIT]
    lines = answer.content.splitlines()
    whole = verify(read_records(lines), lambda token: verify_block(token, keys), lambda token: verify_range(token, keys))
    assert (whole.first, whole.last) == (1, (await controller.last_event()).number)
    assert (await support.get(AUDIT + "/export?format=csv")).text.startswith("number,time,actor_type")


async def test_the_verification_says_how_far_it_came_and_goes_on(
    controller: Running, inventory: Inventory, support: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Nothing signed yet" in (await support.get(AUDIT + "/verify")).text
    await audit_signing.sign_waiting(controller.store, controller.trust, now=True)
    last = (await controller.last_event()).number
    for _ in range(3):
        await controller.write(lambda tx: resources.update(tx, ACTOR, inventory.resources[0], {}))
        await audit_signing.sign_waiting(controller.store, controller.trust, now=True)
    monkeypatch.setattr(audit_check, "PART_EVENTS", last)
    first = (await support.get(AUDIT + "/verify")).text
    assert f"{last} of {last + 3} events verified" in first
    assert f'hx-get="?after={last}"' in first
    assert f'href="?after={last}"' in first  # and without script
    done = (await support.get(f"{AUDIT}/verify?after={last}")).text
    assert f"All {last + 3} signed events are there" in done
    assert 'hx-get="?after' not in done


@pytest.mark.parametrize("part", [3, 2_000])
async def test_the_verification_finds_an_event_that_was_altered_or_removed(
    controller: Running, inventory: Inventory, support: Browser, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    await audit_signing.sign_waiting(controller.store, controller.trust, now=True)
    monkeypatch.setattr(audit_check, "PART_EVENTS", part)
    fourth = (await controller.audit())[3]
    await controller.write(lambda tx: tx.audit.change(fourth.id, detail={"forged": True}))
    text = (await support.get(AUDIT + "/verify")).text
    assert "Not intact" in text
    assert "Event 4 is the first" in text
    await controller.write(lambda tx: tx.audit.remove(number=2))
    assert "Event 2 is the first" in (await support.get(AUDIT + "/verify")).text
