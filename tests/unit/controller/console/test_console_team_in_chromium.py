"""Team, policies and settings in a real browser: no faults on any page, everything works without scripts, searches with them."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.unit.controller.console.chromium import chromium, complaints, faults, needs_chromium
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running
from tools import console_example

pytestmark = [pytest.mark.sqlite_only, needs_chromium]
PATHS = (
    "/team/users", "/team/users?q=nobody", "/team/users/new", "/team/users/2", "/team/groups", "/team/groups/new",
    "/team/groups/1", "/team/groups/2?add=alan", "/policies", "/policies/new", "/policies/2?add=b",
    "/settings/api-tokens", "/settings/api-tokens/new", "/settings/api-tokens/5", "/settings/network", "/settings/relays",
    "/settings/relays/new", "/settings/relays/1", "/settings/sinks", "/settings/sinks/new", "/settings/sinks/new/webhook",
    "/settings/sinks/new/syslog", "/settings/sinks/new/smtp", "/settings/sinks/1", "/settings/sinks/2", "/settings/trust",
)  # fmt: skip


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
async def test_no_page_has_faults(live: Running, admin: Browser, scheme: str, width: int) -> None:
    await live.write(console_example.fill)
    async with chromium(live, admin, scheme=scheme, width=width) as context:
        page = await context.new_page()
        said = complaints(page)
        for path in PATHS:
            answer = await page.goto("/console" + path)
            assert answer is not None
            assert answer.status == 200, path
            assert await faults(page) == [], path
            assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
        assert said == []


@pytest.mark.parametrize("javascript", [True, False])
async def test_pages_that_show_a_secret_have_no_faults_and_can_be_left(live: Running, admin: Browser, javascript: bool) -> None:
    async with chromium(live, admin, javascript=javascript) as context:
        page = await context.new_page()
        await page.goto("/console/settings/api-tokens/new")
        await page.get_by_label("Name").fill("report")
        await page.get_by_role("button", name="Generate token").click()
        await expect(page.get_by_text("This is the only time the token is shown.")).to_be_visible()
        await expect(page.locator("#token")).to_contain_text("kl_api_")
        await expect(page.get_by_role("button", name="Copy").first).to_be_visible(visible=javascript)
        if javascript:
            assert await faults(page) == []
        await page.get_by_role("link", name="Done").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("report")
        await page.goto("/console/settings/relays/new")
        await page.get_by_label("Name").fill("frankfurt-1")
        await page.get_by_role("button", name="Add relay").click()
        await expect(page.locator("#token")).to_contain_text("kl_relay_")
        await expect(page.locator("#shell")).to_contain_text("klinket relay --controller")
        if javascript:
            assert await faults(page) == []


@pytest.mark.parametrize("javascript", [True, False])
async def test_a_group_is_made_and_filled_with_and_without_scripts(live: Running, admin: Browser, javascript: bool) -> None:
    async with chromium(live, admin, javascript=javascript) as context:
        page = await context.new_page()
        await page.goto("/console/team/groups/new")
        await page.get_by_label("Name").fill("Platform")
        await page.get_by_role("button", name="Create group").click()
        await page.get_by_label("Add a user").fill("admin")
        if not javascript:
            await page.get_by_role("button", name="Find").click()
        await page.get_by_role("button", name="Add Admin").click()
        await expect(page.get_by_role("status")).to_contain_text("Admin added.")
        await page.get_by_role("button", name="Remove Admin").click()
        await page.get_by_role("button", name="Undo").click()
        await expect(page.get_by_role("row", name="admin@example.com")).to_be_visible()
        await page.get_by_role("button", name="Delete group").click()
        await expect(page.get_by_text("Its 1 members lose access")).to_be_visible()
        await page.get_by_role("button", name="Delete Platform").click()
        await expect(page.get_by_role("status")).to_contain_text("Group Platform deleted.")


async def test_a_list_follows_what_is_typed(live: Running, admin: Browser) -> None:
    await live.write(console_example.fill)
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto("/console/team/users")
        await page.get_by_label("Name or e-mail").fill("hopper")
        await expect(page.get_by_role("row")).to_have_count(2)  # with the head
        await expect(page).to_have_url("/console/team/users?q=hopper&role=&state=")
        await page.get_by_label("State").select_option("PENDING")
        await expect(page.get_by_role("heading", name="No user like that")).to_be_visible()


async def test_a_key_is_rotated_by_hand(live: Running, admin: Browser) -> None:
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto("/console/settings/trust")
        row = page.get_by_role("row", name="Grants")
        await row.get_by_role("button", name="Rotate").click()
        await row.get_by_role("button", name="Make a new key").click()
        await expect(page.get_by_role("status")).to_contain_text("signs in 5 min")
        await expect(page.get_by_text("Signs soon")).to_be_visible()
        assert await faults(page) == []
