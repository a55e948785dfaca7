"""Passkeys in a real browser with a virtual authenticator, and the sign-in as a person goes through it, with axe."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, CDPSession, Page

from klinket.controller.app import sign_in_links
from klinket.controller.console.sign_in import totp
from klinket.domain.audit import SYSTEM
from tests.unit.controller.console.chromium import chromium, complaints, faults, needs_chromium
from tests.unit.controller.console.visitor import PASSWORD, add_person, code_of, shown_secret
from tests.unit.controller.running import Running

pytestmark = needs_chromium


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Running]:
    """A controller that people call localhost: there are no passkeys for an IP address."""
    running = Running(tmp_path / "state", host="localhost")
    await running.open()
    async with running.listening():
        yield running
    running.store.close()


class Authenticator:
    """A virtual device that makes and keeps passkeys. `verified`: its owner is proved by a finger or PIN."""

    def __init__(self, session: CDPSession, id: str) -> None:
        self.session = session
        self.id = id

    async def be_verified(self, verified: bool) -> None:
        await self.session.send("WebAuthn.setUserVerified", {"authenticatorId": self.id, "isUserVerified": verified})

    async def credentials(self) -> list[dict[str, Any]]:
        return list((await self.session.send("WebAuthn.getCredentials", {"authenticatorId": self.id}))["credentials"])

    async def be_a_copy(self) -> None:
        """Go back to an earlier state: the counter is what it was."""
        for credential in await self.credentials():
            await self.session.send(
                "WebAuthn.removeCredential", {"authenticatorId": self.id, "credentialId": credential["credentialId"]}
            )
            older = {**credential, "signCount": 0}
            await self.session.send("WebAuthn.addCredential", {"authenticatorId": self.id, "credential": older})


async def authenticator(page: Page) -> Authenticator:
    session = await page.context.new_cdp_session(page)
    await session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    added = await session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return Authenticator(session, added["authenticatorId"])


async def first_admin(running: Running, page: Page) -> None:
    """Open the one-time link, choose an account, and come to the choice of a second factor."""
    link = await running.write(lambda tx: sign_in_links.first_admin(tx, SYSTEM, os.urandom))
    assert link is not None
    await page.goto(sign_in_links.address_of(running.config.public_url, link))
    await page.get_by_label("E-mail address").fill("ada@example.com")
    assert link not in page.url
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_label("The same again").fill(PASSWORD)
    await page.get_by_role("button", name="Continue").click()
    await page.wait_for_url("**/sign-in/set-up")


async def with_passkey(page: Page) -> None:
    """Set up a passkey as the second factor and go on to the console."""
    await page.get_by_label("Name it").fill("This laptop")
    await page.get_by_role("button", name="Use a passkey").click()
    await page.get_by_role("link", name="I have kept them").click()
    await page.wait_for_url("**/console/")


async def sign_out(page: Page) -> None:
    await page.goto("/console/account")
    await page.get_by_role("main").get_by_role("button", name="Sign out").click()
    await page.wait_for_url("**/sign-in")


async def opened(context: BrowserContext) -> tuple[Page, Authenticator]:
    page = await context.new_page()
    return page, await authenticator(page)


async def test_a_passkey_is_set_up_and_signs_in_alone_and_as_second_factor(local: Running) -> None:
    async with chromium(local) as context:
        page, _ = await opened(context)
        said = complaints(page)
        await first_admin(local, page)
        await with_passkey(page)
        await sign_out(page)
        await page.get_by_role("button", name="Sign in with a passkey").click()
        await page.wait_for_url("**/console/")
        await sign_out(page)
        await page.get_by_label("E-mail address").fill("ada@example.com")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Continue").click()
        await page.get_by_role("button", name="Use a passkey").click()
        await page.wait_for_url("**/console/")
        assert said == []
    methods = [row.detail["method"] for row in await local.audit() if row.action == "login"]
    assert methods == ["password+passkey", "passkey", "password+passkey"]
    (row,) = await local.read(lambda tx: tx.passkeys.find())
    assert (row.name, row.transports) == ("This laptop", ["internal"])
    assert row.last_used_ms is not None
    assert row.sign_count > 1


async def test_a_passkey_alone_needs_its_owner_verified(local: Running) -> None:
    async with chromium(local) as context:
        page, device = await opened(context)
        await first_admin(local, page)
        await with_passkey(page)
        await sign_out(page)
        await device.be_verified(False)
        await page.get_by_role("button", name="Sign in with a passkey").click()
        await page.get_by_text("It was cancelled, or took too long").wait_for()
        # A browser that lies about what was asked for: the answer itself says that nobody was verified.
        form = page.locator("form[data-passkey]")
        options = (await form.get_attribute("data-options") or "").replace('"required"', '"discouraged"')
        await form.evaluate("(form, options) => { form.dataset.options = options; }", options)
        await page.get_by_role("button", name="Sign in with a passkey").click()
        await page.get_by_role("alert").wait_for()
        assert "is not known here" in await page.get_by_role("alert").inner_text()
    assert [row.detail["method"] for row in await local.audit() if row.action == "refuse"] == ["passkey"]


async def test_a_copy_of_a_passkey_is_noticed(local: Running) -> None:
    async with chromium(local) as context:
        page, device = await opened(context)
        await first_admin(local, page)
        await with_passkey(page)
        await sign_out(page)
        await device.be_a_copy()
        await page.get_by_role("button", name="Sign in with a passkey").click()
        await page.get_by_role("alert").wait_for()
        assert "copy of it" in await page.get_by_role("alert").inner_text()


async def test_an_answer_counts_once_and_for_what_it_was_asked_for(local: Running) -> None:
    async with chromium(local) as context:
        page, _ = await opened(context)
        await first_admin(local, page)
        await with_passkey(page)
        await sign_out(page)
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.post_data or "") if request.method == "POST" else None)
        await page.get_by_role("button", name="Sign in with a passkey").click()
        await page.wait_for_url("**/console/")
        (body,) = [one for one in sent if "answer=" in one]
    headers = {"origin": local.config.public_url, "sec-fetch-site": "same-origin"}
    headers["content-type"] = "application/x-www-form-urlencoded"
    async with local.http() as client:
        again = await client.post("/console/sign-in/passkey", content=body, headers=headers)
        assert (again.status_code, "set-cookie" in again.headers) == (401, False)
        assert "used already" in again.text or "counts backwards" in again.text
        for name in ("challenge", "answer"):
            spoilt = re.sub(rf"({name}=[^&]{{30}})[^&]", r"\1A", body)
            answer = await client.post("/console/sign-in/passkey", content=spoilt, headers=headers)
            assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


async def test_another_passkey_is_added_renamed_and_removed_and_a_registered_device_refuses(local: Running) -> None:
    await add_person(local)
    async with chromium(local) as context:
        page, device = await opened(context)
        await page.goto("/console/sign-in")
        await page.get_by_label("E-mail address").fill("ada@example.com")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Continue").click()
        await page.get_by_label("Code of your authenticator app").fill(await code_of(local))
        await page.get_by_role("button", name="Continue").click()
        await page.goto("/console/account/passkeys/new")
        await page.get_by_label("Name").fill("Key one")
        await page.get_by_role("main").get_by_role("button", name="Add a passkey").click()
        await page.get_by_role("status").filter(has_text="Passkey added").wait_for()
        await page.goto("/console/account/passkeys/new")
        await page.get_by_label("Name").fill("Key one again")
        await page.get_by_role("main").get_by_role("button", name="Add a passkey").click()
        await page.get_by_text("This device is registered already").wait_for()
        await page.goto("/console/account")
        await page.get_by_text("Rename").click()
        await page.get_by_label("Name", exact=True).fill("Blue key")
        await page.get_by_role("button", name="Save").click()
        await page.get_by_role("status").filter(has_text="Passkey renamed").wait_for()
        line = page.locator(".line", has_text="Blue key")
        await line.get_by_role("button", name="Remove").click()
        await line.get_by_role("button", name="Remove the passkey").click()
        await page.get_by_role("status").filter(has_text="Passkey removed").wait_for()
        assert await local.read(lambda tx: tx.passkeys.count()) == 0
        assert len(await device.credentials()) == 1


async def test_a_passkey_is_a_fresh_proof(local: Running) -> None:
    async with chromium(local) as context:
        page, _ = await opened(context)
        await first_admin(local, page)
        await with_passkey(page)
        local.offset += 301
        await page.goto("/console/account/app")
        await page.get_by_role("button", name="Use a passkey").click()
        await page.wait_for_url("**/account/app")
    assert (await local.last_event()).detail == {"method": "passkey", "again": True}


async def test_without_scripts_everything_but_passkeys_works(local: Running) -> None:
    async with chromium(local, javascript=False) as context:
        page = await context.new_page()
        link = await local.write(lambda tx: sign_in_links.first_admin(tx, SYSTEM, os.urandom))
        await page.goto("/console/sign-in/link")
        await page.get_by_label("One-time link").fill(link or "")
        await page.get_by_role("button", name="Continue").click()
        await page.get_by_label("E-mail address").fill("ada@example.com")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_label("The same again").fill(PASSWORD)
        await page.get_by_role("button", name="Continue").click()
        assert "Passkeys need JavaScript" in await page.get_by_role("main").inner_text()
        await page.get_by_role("link", name="Use an authenticator app").click()
        secret = shown_secret(await page.content())
        await page.get_by_label("Code of your authenticator app").fill(totp.code_at(secret, local.clock()))
        await page.get_by_role("button", name="Finish").click()
        assert await page.locator(".codes li").count() == 10
        await page.get_by_role("link", name="I have kept them").click()
        assert await page.get_by_role("heading", level=1).inner_text() == "Overview"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
async def test_no_page_of_the_sign_in_has_faults(local: Running, scheme: str, width: int) -> None:
    async with chromium(local, scheme=scheme, width=width) as context:
        page, _ = await opened(context)
        said = complaints(page)

        async def look() -> None:
            assert await faults(page) == [], page.url
            assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), page.url

        for path in ("/sign-in", "/sign-in/link"):
            await page.goto("/console" + path)
            await look()
        await first_admin(local, page)
        await look()
        await page.goto("/console/sign-in/set-up/app")
        await look()
        secret = shown_secret(await page.content())
        await page.get_by_label("Code of your authenticator app").fill(totp.code_at(secret, local.clock()))
        await page.get_by_role("button", name="Finish").click()
        await page.locator(".codes").wait_for()
        await look()
        for path in (
            "/account", "/account/app", "/account/passkeys/new", "/settings/console-access", "/settings/console-access/1",
            "/settings/console-access/invite", "/prove",
        ):  # fmt: skip
            await page.goto("/console" + path)
            await look()
        await page.goto("/console/settings/console-access/invite")
        await page.get_by_label("E-mail address").fill("grace@example.com")
        await page.get_by_role("button", name="Invite").click()
        await page.locator("#link").wait_for()
        await look()
        assert said == []
