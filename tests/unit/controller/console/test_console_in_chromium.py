"""The frame in a real browser: no complaints, no faults for those who cannot see or use a mouse, and it works without scripts."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.controller.console.chromium import chromium, complaints, faults, needs_chromium
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running

pytestmark = [pytest.mark.sqlite_only, needs_chromium]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
async def test_the_frame_has_no_faults(live: Running, admin: Browser, scheme: str, width: int) -> None:
    async with chromium(live, admin, scheme=scheme, width=width) as context:
        page = await context.new_page()
        said = complaints(page)
        for path in ("/", "/network/remote-networks", "/network/remote-networks/new"):
            await page.goto("/console" + path)
            assert await faults(page) == []
            assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert said == []


async def test_slash_goes_to_the_search(live: Running, admin: Browser) -> None:
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto("/console/")
        await page.keyboard.press("/")
        assert await page.evaluate("document.activeElement.id") == "search"


async def test_a_page_renews_itself_when_another_admin_changes_something(live: Running, admin: Browser, devops: Browser) -> None:
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto("/console/")
        hears = "new Promise((heard) => document.body.addEventListener('live:inventory', () => heard('yes')))"
        heard = asyncio.ensure_future(page.evaluate(hears))
        await page.wait_for_timeout(1000)
        await devops.post("/network/remote-networks/new", {"name": "theirs", "location": "AWS"})
        assert await heard == "yes"


@pytest.mark.parametrize("javascript", [True, False])
async def test_a_remote_network_is_added_and_deleted_with_and_without_scripts(
    live: Running, admin: Browser, javascript: bool
) -> None:
    async with chromium(live, admin, javascript=javascript) as context:
        page = await context.new_page()
        await page.goto("/console/network/remote-networks")
        await page.get_by_role("link", name="Add the first one").click()
        await page.get_by_label("Name").fill("office")
        await page.get_by_role("button", name="Add remote network").click()
        assert await page.get_by_role("heading", level=1).inner_text() == "office"
        await page.get_by_role("button", name="Delete remote network").click()
        await page.get_by_role("button", name="Delete office").click()
        assert "No remote networks yet" in await page.get_by_role("main").inner_text()


async def test_what_a_page_fetches_by_itself_says_so_and_what_somebody_types_does_not(live: Running, admin: Browser) -> None:
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto("/console/activity/audit")
        async with page.expect_request(lambda request: "hx-request" in request.headers) as alone:
            await page.evaluate("document.body.dispatchEvent(new CustomEvent('live:inventory'))")
        assert (await alone.value).headers["x-klinket-live"] == "1"
        async with page.expect_request(lambda request: "/console/search" in request.url) as typed:
            await page.locator("#search").press_sequentially("ada")
        assert "x-klinket-live" not in (await typed.value).headers
