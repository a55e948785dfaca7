"""Services in a real browser: the four steps with and without scripts, the key that is gone after its page, live receipts."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from klinket.controller.app import cuts
from klinket.controller.app.rows import ServiceKeyRow
from klinket.controller.graphql.global_id import to_global_id
from klinket.wire.key_file import parse_key_file
from tests.unit.controller.console.chromium import chromium, complaints, faults, needs_chromium
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running

pytestmark = [pytest.mark.sqlite_only, needs_chromium, pytest.mark.timeout(120)]
SERVICE = "/console/team/services/1"


async def prepare(running: Running, *, service: bool = True) -> None:
    """Make a network with a connector and two resources, and a service that reaches one of them with an old key."""
    network = await running.add_network()
    await running.add_connector(network, "office-1")
    resource = await running.add_resource(network)
    await running.add_resource(network, "Cache", "cache.internal")
    if service:
        account = await running.add_account("ci", [resource])
        await running.add_key(account, 10, "old")


async def newest_key(running: Running) -> ServiceKeyRow:
    return (await running.read(lambda tx: tx.service_keys.newest(1)))[0]


async def shown_key(page: Page) -> str:
    return (await page.locator("#key-text").text_content()) or ""


@pytest.mark.parametrize("javascript", [True, False])
async def test_the_four_steps_with_and_without_scripts(live: Running, admin: Browser, javascript: bool) -> None:
    await prepare(live, service=False)
    async with chromium(live, admin, javascript=javascript) as context:
        page = await context.new_page()
        said = complaints(page)
        await page.goto("/console/team/services")
        await page.get_by_role("link", name="Create Service Account").first.click()
        await page.get_by_label("Name").fill("deploy")
        await page.get_by_role("button", name="Create Service Account").click()
        await page.get_by_role("link", name="Generate Key").first.click()
        await page.get_by_label("Name").fill("GitHub")
        await page.get_by_role("button", name="Generate Key").click()
        await expect(page.get_by_text("This is the only time the key is shown")).to_be_visible()
        key = parse_key_file(await shown_key(page))
        await page.get_by_role("link", name="Add Resource").click()
        await page.get_by_placeholder("Search by name, address or alias").fill("db.int")
        if not javascript:
            await page.get_by_role("button", name="Search", exact=True).click()
        await expect(page.get_by_text("cache.internal")).to_have_count(0)  # typing is enough where scripts run
        await page.get_by_label("Database").check()
        await page.get_by_role("button", name="Add Resource").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("deploy")
        await expect(page.locator("#resources")).to_contain_text("db.internal")
        assert said == [], said[0][:3000]
    await live.log_in(key)
    assert (await newest_key(live)).name == "GitHub"


async def test_a_key_is_gone_when_its_page_is_loaded_again_or_gone_back_to(live: Running, admin: Browser) -> None:
    await prepare(live)
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto(SERVICE + "/keys/new")
        await page.get_by_role("button", name="Generate Key").click()
        assert "PRIVATE KEY" in await shown_key(page)
        assert "PRIVATE" not in page.url
        await page.reload()
        await expect(page.get_by_role("heading", level=1)).to_have_text("ci")
        await page.goto(SERVICE + "/keys/new")
        await page.get_by_role("button", name="Generate Key").click()
        await page.get_by_role("link", name="I have stored the key").click()
        await page.go_back()
        assert "PRIVATE KEY" not in await page.content()
    assert await live.read(lambda tx: tx.service_keys.count()) == 3


async def test_without_scripts_a_reload_makes_no_second_key(live: Running, admin: Browser) -> None:
    await prepare(live)
    async with chromium(live, admin, javascript=False) as context:
        page = await context.new_page()
        await page.goto(SERVICE + "/keys/new")
        await page.get_by_role("button", name="Generate Key").click()
        assert "PRIVATE KEY" in await shown_key(page)
        await page.reload()
        await expect(page.get_by_role("main")).to_contain_text("it cannot be shown again")
        assert "PRIVATE KEY" not in await page.content()
    assert await live.read(lambda tx: tx.service_keys.count()) == 2


async def test_a_key_is_copied_and_saved_as_a_file(live: Running, admin: Browser, tmp_path: Path) -> None:
    await prepare(live)
    async with chromium(live, admin) as context:
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = await context.new_page()
        said = complaints(page)
        await page.goto(SERVICE + "/keys/new")
        await page.get_by_role("button", name="Generate Key").click()
        text = await shown_key(page)
        await page.get_by_role("button", name="Copy", exact=True).first.click()
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert await page.evaluate("navigator.clipboard.readText()") == text
        async with page.expect_download() as download:
            await page.get_by_role("button", name="Download ci.json").click()
        saved = await download.value
        assert saved.suggested_filename == "ci.json"
        await saved.save_as(tmp_path / "ci.json")
        assert said == [], said[0][:3000]
    assert json.loads((tmp_path / "ci.json").read_text()) == json.loads(text)


@pytest.mark.parametrize("javascript", [True, False])
async def test_the_answer_itself_is_the_file_where_no_script_can_make_one(
    live: Running, admin: Browser, tmp_path: Path, javascript: bool
) -> None:
    await prepare(live)
    async with chromium(live, admin, javascript=javascript) as context:
        page = await context.new_page()
        await page.goto(SERVICE + "/keys/new")
        async with page.expect_download() as download:
            await page.get_by_role("button", name="Generate and download").click()
        await (await download.value).save_as(tmp_path / "ci.json")
        await page.get_by_role("button", name="Generate Key").click()  # the form is still there, and is spent
        await expect(page.get_by_role("main")).to_contain_text("it cannot be shown again")
    await live.log_in(parse_key_file((tmp_path / "ci.json").read_bytes()))
    assert await live.read(lambda tx: tx.service_keys.count()) == 2


async def test_what_depends_on_a_choice_appears_with_it(live: Running, admin: Browser) -> None:
    await prepare(live)
    async with chromium(live, admin, javascript=False) as context:
        page = await context.new_page()
        await page.goto(SERVICE + "/keys/new")
        warning = page.get_by_text("A key that never expires opens everything")
        days, public, overlap = (page.locator(f"[name={name}]") for name in ("expirationTime", "publicKey", "overlapHours"))
        for hidden in (warning, days, public, overlap):
            await expect(hidden).to_be_hidden()
        await page.get_by_label("Never expires").check(force=True)
        await expect(warning).to_be_visible()
        await page.get_by_label("Other").check(force=True)
        await expect(days).to_be_visible()
        await page.get_by_label("I bring my own public key").check()
        await expect(public).to_be_visible()
        await page.get_by_label("Takes over from").select_option(index=1)
        await expect(overlap).to_be_visible()


@pytest.mark.parametrize("javascript", [True, False])
async def test_a_key_is_renamed_revoked_and_deleted_with_and_without_scripts(
    live: Running, admin: Browser, javascript: bool
) -> None:
    await prepare(live)
    async with chromium(live, admin, javascript=javascript) as context:
        page = await context.new_page()
        said = complaints(page)
        await page.goto(SERVICE)
        keys = page.locator("#keys")
        await keys.get_by_role("button", name="Rename", exact=True).first.click()
        await keys.get_by_role("textbox", name="Name").fill("older")
        await keys.get_by_role("dialog").get_by_role("button", name="Rename").click()
        await expect(keys).to_contain_text("older")
        await keys.get_by_role("button", name="Revoke", exact=True).click()
        await keys.get_by_role("button", name="Revoke key").click()
        receipt = page.locator("#receipt")
        await expect(receipt).to_contain_text("0 of 1 connectors answered")
        cut = int(page.url.partition("cut=")[2])
        await live.write(lambda tx: cuts.answer(tx, cut, 1, stopped_at_ms=tx.now_ms, took_ms=8.2, flows=[{"flow": "1"}]))
        if not javascript:
            await page.reload()
        await expect(receipt).to_contain_text(re.compile(r"ended 1 flow\s+in 8 ms"))  # it comes by itself
        await expect(receipt).to_contain_text("Every connector answered")
        await keys.get_by_role("button", name="Delete", exact=True).click()
        await keys.get_by_role("button", name="Delete key").click()
        await expect(page.get_by_role("main")).to_contain_text("No keys yet")
        assert said == [], said[0][:3000]


async def test_a_form_above_the_page_closes_with_escape_and_is_not_redrawn_while_open(
    live: Running, admin: Browser, devops: Browser
) -> None:
    await prepare(live)
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto(SERVICE)
        opener = page.locator("#keys").get_by_role("button", name="Rename", exact=True).first
        await opener.click()
        field = page.locator("#keys").get_by_role("textbox", name="Name")
        await field.fill("half a na")
        hears = "new Promise((heard) => document.body.addEventListener('live:inventory', () => heard('yes')))"
        heard = asyncio.ensure_future(page.evaluate(hears))
        await page.wait_for_timeout(500)
        await devops.post("/network/remote-networks/new", {"name": "theirs", "location": "AWS"})
        await heard
        await page.wait_for_timeout(500)
        assert await field.input_value() == "half a na"
        await page.keyboard.press("Escape")
        await expect(field).to_be_hidden()
        assert await opener.evaluate("button => button === document.activeElement")


async def test_a_session_shows_up_and_goes_by_itself(live: Running, admin: Browser) -> None:
    await prepare(live)
    _, key = await live.add_key(to_global_id("ServiceAccount", 1), name="runner")
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto(SERVICE)
        sessions = page.locator("#sessions")
        await expect(sessions).to_contain_text("Nobody is logged in")
        async with live.attached(await live.log_in(key)):
            await expect(sessions).to_contain_text("runner-1")
            await sessions.get_by_role("button", name="End", exact=True).click()
            await sessions.get_by_role("button", name="End session").click()
            await expect(sessions).to_contain_text("Nobody is logged in")
            await expect(page.locator("#receipt")).to_be_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
async def test_the_pages_have_no_faults(live: Running, admin: Browser, scheme: str, width: int) -> None:
    await prepare(live)
    async with chromium(live, admin, scheme=scheme, width=width) as context:
        page = await context.new_page()
        said = complaints(page)

        async def check(what: str) -> None:
            assert await faults(page) == [], what
            assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), what

        list_ = "/console/team/services"
        paths = ("", "?q=nobody", "/new", "/1", "/keys", "/1/resources", "/1/resources/new", "/1/sessions", "/1/keys/new")
        for path in paths:
            await page.goto(list_ + path)
            await check(path)
        await page.get_by_role("button", name="Generate Key").click()
        await check("the key")
        await page.goto(SERVICE)
        await page.get_by_role("button", name="Revoke", exact=True).first.click()
        await check("asking")
        await page.get_by_role("button", name="Revoke key").first.click()
        await check("the receipt")
        assert said == [], said[0][:3000]
