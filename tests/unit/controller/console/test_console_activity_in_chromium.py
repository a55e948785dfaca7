"""Activity and search in a real browser: lists renew themselves, filters apply at once, results are reached by keys."""

from __future__ import annotations

import pytest

from klinket.controller import audit_signing
from klinket.controller.app import audit_check, cuts, resources, service_keys
from tests.unit.controller.console.activity import ACTOR, Inventory
from tests.unit.controller.console.chromium import chromium, complaints, needs_chromium
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running

pytestmark = [pytest.mark.sqlite_only, needs_chromium]


async def test_a_flow_appears_while_it_lives_and_then_as_ended(live: Running, admin: Browser) -> None:
    inventory = await live.write(Inventory)
    await live.write(lambda tx: inventory.keep(tx, inventory.event("denied", "old", failure="not-granted")))
    async with chromium(live, admin) as context:
        page = await context.new_page()
        said = complaints(page)
        await page.goto("/console/activity/flows")
        await page.wait_for_timeout(1500)  # until it listens
        await live.write(lambda tx: inventory.keep(tx, inventory.event("established", "a", time_ms=tx.now_ms)))
        await page.get_by_role("table", name="Live flows").wait_for()
        await live.write(lambda tx: inventory.keep(tx, inventory.event("closed", "a", time_ms=tx.now_ms)))
        await page.get_by_role("table", name="Live flows").wait_for(state="detached")
        assert "Completed" in await page.get_by_role("table", name="Past flows").inner_text()
        assert said == []


async def test_a_receipt_appears_as_it_comes_in(live: Running, admin: Browser) -> None:
    inventory = await live.write(Inventory)
    await live.write(lambda tx: service_keys.revoke(tx, ACTOR, inventory.keys[0]))
    cut = (await live.read(lambda tx: tx.cuts.newest(1)))[0].id
    connector = inventory.connector.id
    await live.write(lambda tx: tx.cut_receipts.remove(cut_id=cut))
    waiting = {"connector_name": "brave-otter", "state": "pending", "grants_end_at_ms": 1 << 42, "flows": []}
    await live.write(lambda tx: tx.cut_receipts.add(cut_id=cut, connector_id=connector, **waiting))
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto(f"/console/activity/cuts/{cut}")
        assert "0 of 1 answered" in await page.get_by_role("main").inner_text()
        await page.wait_for_timeout(1500)
        await live.write(lambda tx: cuts.answer(tx, cut, connector, stopped_at_ms=tx.now_ms, took_ms=3.0, flows=[], token="t"))
        await page.get_by_text("by the connector").wait_for()
        assert "0 of 1" not in await page.get_by_role("main").inner_text()


async def test_a_filter_applies_as_it_is_chosen_and_stays_in_the_address(live: Running, admin: Browser) -> None:
    inventory = await live.write(Inventory)
    events = [inventory.event("closed", "a"), inventory.event("denied", "b", host="secret.internal", failure="not-granted")]
    await live.write(lambda tx: inventory.keep(tx, *events))
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto("/console/activity/flows")
        await page.locator("select[name=result]").select_option("denied")
        await page.get_by_text("orders.internal:443").wait_for(state="detached")
        assert "result=denied" in page.url
        assert "secret.internal" in await page.get_by_role("main").inner_text()


async def test_results_are_reached_with_the_arrows_and_left_with_escape(live: Running, admin: Browser) -> None:
    await live.write(Inventory)
    async with chromium(live, admin) as context:
        page = await context.new_page()
        said = complaints(page)
        await page.goto("/console/")
        await page.keyboard.press("/")
        await page.keyboard.type("ci-")
        await page.locator("#search-found [data-hit]").first.wait_for()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        assert "ci-deploy" in await page.evaluate("document.activeElement.textContent")
        await page.keyboard.press("ArrowUp")
        await page.keyboard.press("ArrowUp")
        assert await page.evaluate("document.activeElement.id") == "search"
        await page.keyboard.press("Escape")
        assert await page.locator("#search-found [data-hit]").count() == 0
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/console/search?q=ci-")
        assert said == []


@pytest.mark.parametrize("javascript", [True, False])
async def test_a_verification_goes_through_to_its_end(
    live: Running, admin: Browser, javascript: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = await live.write(Inventory)
    for name in ("a", "b", "c"):
        await live.write(lambda tx: resources.update(tx, ACTOR, inventory.resources[0], {"name": name}))  # noqa: B023
        await audit_signing.sign_waiting(live.store, live.trust, now=True)
    monkeypatch.setattr(audit_check, "PART_EVENTS", 1)
    async with chromium(live, admin, javascript=javascript) as context:
        page = await context.new_page()
        await page.goto("/console/activity/audit/verify")
        while not javascript and await page.get_by_role("link", name="Go on").count():
            await page.get_by_role("link", name="Go on").click()
        await page.get_by_text("Intact", exact=True).wait_for()
