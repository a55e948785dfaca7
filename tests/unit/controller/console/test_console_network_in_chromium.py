"""Network and the overview in a real browser: no faults, live, and everything works without scripts."""

from __future__ import annotations

import json
import re

import pytest

from klinket.wire import control
from tests.unit.controller.console.chromium import chromium, complaints, faults, needs_chromium
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.console.test_console_connectors import add as add_connector
from tests.unit.controller.running import Running
from tools import console_example

pytestmark = [pytest.mark.sqlite_only, pytest.mark.timeout(300), needs_chromium]
PAGES = (
    "/",
    "/network/remote-networks",
    "/network/remote-networks/3",
    "/network/remote-networks/new",
    "/network/connectors",
    "/network/connectors?q=nothing",
    "/network/connectors/1",
    "/network/connectors/4",
    "/network/connectors/new",
    "/network/connectors/1/tokens",
    "/network/resources",
    "/network/resources/1",
    "/network/resources/8",
    "/network/resources/new",
    "/network/resources/1/edit",
    "/network/resources/1/access",
)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
async def test_no_page_has_faults(live: Running, admin: Browser, scheme: str, width: int) -> None:
    await live.write(console_example.fill)
    console_example.attach(live.peers, await live.read(lambda tx: tx.connectors.find()))
    async with chromium(live, admin, scheme=scheme, width=width) as context:
        page = await context.new_page()
        said = complaints(page)
        for path in PAGES:
            await page.goto("/console" + path)
            assert await faults(page) == [], path
            assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
        await page.goto("/console/network/connectors/4/tokens")
        await page.get_by_role("button", name="tokens").click()
        assert await faults(page) == []
        assert said == []
    live.peers.connectors.clear()


async def test_a_connector_turns_healthy_while_its_tokens_are_shown(live: Running, admin: Browser) -> None:
    await live.write(add_connector)
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto("/console/network/connectors/1/tokens")
        await page.get_by_role("button", name="Generate tokens").click()
        state = page.locator("#turns-healthy")
        assert "Never connected" in await state.inner_text()
        tokens = json.loads(await page.locator("#tokens-text").inner_text())
        enrolled = await live.enrol({name: tokens[name] for name in ("access_token", "refresh_token")})
        async with live.attached(enrolled) as channel:
            await channel.wait_for(control.ConnectorConfiguration)
            await channel.send(control.Heartbeat(sequence=1, time_ms=round(live.clock() * 1000), version="1.80.0", hostname="gw"))
            await state.get_by_text("gw is attached with version 1.80.0").wait_for()
        assert "kl_conn" in await page.locator("#tokens-text").inner_text()  # they stay while only the state is renewed


async def test_the_map_renews_itself(live: Running, admin: Browser, devops: Browser) -> None:
    await live.write(add_connector)
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto("/console/")
        await page.wait_for_timeout(1000)
        await devops.post(
            "/network/resources/new",
            {"name": "Fresh", "address": "fresh.internal", "network": "1", "tcp": "ALL", "udp": "NONE", "is_visible": "on"},
        )
        await page.locator("svg.map").locator("text", has_text=re.compile("^Fresh$")).wait_for()


async def test_lists_narrow_while_one_types(live: Running, admin: Browser) -> None:
    await live.write(console_example.fill)
    async with chromium(live, admin) as context:
        page = await context.new_page()
        await page.goto("/console/network/resources")
        await page.locator("main [name=q][type=search]").press_sequentially("staging")
        await page.get_by_text("2 resources").wait_for()
        assert page.url.endswith("q=staging&network=&state=&tag=")
        assert await page.locator("#resources tbody tr").count() == 2


@pytest.mark.parametrize("javascript", [True, False])
async def test_from_a_network_to_access_and_back(live: Running, admin: Browser, javascript: bool) -> None:
    await live.write(console_example.fill)
    async with chromium(live, admin, javascript=javascript) as context:
        page = await context.new_page()
        await page.goto("/console/network/remote-networks")
        await page.get_by_role("link", name="staging").click()
        await page.get_by_role("link", name="Add connector").click()
        await page.locator("main [name=name]").fill("fresh-otter")
        await page.get_by_role("button", name="Continue to its tokens").click()
        await page.get_by_role("button", name="Generate tokens").click()
        assert "This is the only time" in await page.get_by_role("main").inner_text()
        await page.goto("/console/network/remote-networks/2")
        await page.get_by_role("link", name="Add resource").click()
        await page.locator("main [name=name]").fill("Queue")
        await page.locator("main [name=address]").fill("queue.staging.internal")
        await page.locator("[name=tcp]").select_option("Only these ports")
        await page.locator("[name=tcp_ports]").fill("5671, 5672")
        await page.get_by_role("button", name="Add resource").click()
        main = page.get_by_role("main")
        assert "TCP 5671, 5672; UDP all ports; ICMP" in await main.inner_text()
        await page.get_by_role("link", name="Give a service access").click()
        await page.locator("main [name=q][type=search]").fill("terra")
        if javascript:
            await page.get_by_label("ci-runners").wait_for(state="detached")
        else:
            await page.get_by_role("button", name="Find").click()
        await page.get_by_label("terraform").check()
        await page.locator("[name=end]").select_option("7 days")
        await page.get_by_role("button", name="Give access").click()
        assert "terraform may reach it now" in await main.inner_text()
        await page.locator("tr", has_text="terraform").get_by_role("button", name="Remove", exact=True).click()
        await page.get_by_role("button", name="Remove terraform").click()
        assert "Nobody may reach it" in await main.inner_text()
        await page.get_by_role("button", name="Undo").click()
        assert "Nobody may reach it" not in await main.inner_text()
        await page.get_by_role("button", name="Disable", exact=True).click()
        await page.get_by_role("button", name="Disable Queue").click()
        await page.get_by_role("button", name="Enable it again").click()
        assert "Resource Queue enabled" in await main.inner_text()
        await page.get_by_role("button", name="Delete resource").click()
        await page.get_by_role("button", name="Delete Queue").click()
        assert "Resource Queue deleted" in await main.inner_text()
