"""As a person does it, in a real browser with real parts: from the first admin to a deleted key."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from playwright.async_api import Page, async_playwright, expect

from examples.deployment import Deployment, clean_environment, free_port
from tests.unit.controller.console.chromium import OPTIONS, PROGRAM, complaints, needs_chromium

pytestmark = [needs_chromium, pytest.mark.alone, pytest.mark.timeout(300)]

PRIVATE_ADDRESS = "127.77.0.30"
PASSWORD = "seven quiet herons at dawn"
#: A job that holds a flow and says what it hears.
JOB = """import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as connection:
    connection.settimeout(120)
    connection.sendall(b"hello")
    while data := connection.recv(100):
        print(data.decode(), flush=True)
"""
#: Greets once, then holds the connection.
SERVICE = """import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
held = []
while True:
    connection, _ = listener.accept()
    connection.sendall(b"from the private network")
    held.append(connection)
"""


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(tmp_path) as made:
        made.start_controller()
        yield made


@pytest.fixture
async def page(deployment: Deployment) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=PROGRAM, args=list(OPTIONS))
        context = await browser.new_context(base_url=deployment.url, ignore_https_errors=True, accept_downloads=True)
        context.set_default_timeout(30_000)
        yield await context.new_page()
        await browser.close()


def first_link(deployment: Deployment) -> str:
    """Return the one-time link that the first start has printed."""
    found = re.search(r"https://\S+/console/sign-in/link\S+", deployment.parts["controller"].log.read_text())
    assert found is not None
    return found.group()


async def make_the_first_admin(page: Page, link: str) -> None:
    await page.goto(link)
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_label("E-mail address").fill("ada@example.com")
    for field in await page.locator("input[type=password]").all():
        await field.fill(PASSWORD)
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_role("link", name="Use an authenticator app").click()
    await page.get_by_text("Or enter it by hand").click()
    secret = re.sub(r"\s", "", await page.locator("#secret").inner_text())
    await page.get_by_label("Code of your authenticator app").fill(code_of(secret))
    await page.get_by_label("Code of your authenticator app").press("Enter")
    await page.get_by_role("heading", name="Keep your recovery codes").wait_for()
    await page.get_by_role("link", name="I have kept them: go on").click()
    await page.get_by_role("heading", name="Overview", level=1).wait_for()


def code_of(secret: str) -> str:
    """Return the code an authenticator app shows now (RFC 6238)."""
    import base64

    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    return TOTP(key, 6, SHA1(), 30, enforce_key_length=False).generate(int(time.time())).decode()


async def choose(page: Page, area: str) -> None:
    """Follow the menu."""
    await page.get_by_role("navigation", name="Console").get_by_role("link", name=area, exact=True).click()


async def test_from_the_first_admin_to_a_deleted_key(deployment: Deployment, page: Page, tmp_path: Path) -> None:
    said = complaints(page)
    port = free_port(PRIVATE_ADDRESS)
    deployment.start("service", [sys.executable, "-c", SERVICE, PRIVATE_ADDRESS, str(port)])
    await make_the_first_admin(page, first_link(deployment))

    # A remote network, and a connector that the shown snippet starts and that turns healthy on the page.
    await choose(page, "Remote networks")
    await page.get_by_role("link", name="Add the first one").or_(page.get_by_role("button", name="Add the first one")).click()
    await page.get_by_label("Name").fill("office")
    await page.get_by_role("button", name="Add remote network").click()
    await page.get_by_role("heading", name="office", level=1).wait_for()
    await choose(page, "Connectors")
    await page.locator("a[href^='/console/network/connectors/new']").first.click()
    await page.get_by_label("Name").fill("office-1")
    await page.get_by_role("button", name="Continue to its tokens").click()
    await page.get_by_role("button", name="Generate tokens").click()
    await page.get_by_text("This is the only time these tokens are shown.").wait_for()
    snippet = await page.locator("[id^=snippet-]").first.text_content()
    assert snippet is not None
    start_connector(deployment, snippet, tmp_path)
    await page.locator("#turns-healthy").get_by_text("is attached").wait_for()

    # A resource.
    await choose(page, "Resources")
    await page.locator("a[href^='/console/network/resources/new']").first.click()
    await page.get_by_label("Name").first.fill("Orders")
    await page.get_by_role("textbox", name="Address").fill(PRIVATE_ADDRESS)
    await page.get_by_label("Alias").fill("orders.internal")
    await page.get_by_role("button", name="Add resource").click()
    await page.get_by_role("heading", name="Orders", level=1).wait_for()

    # The four documented steps.
    await choose(page, "Services")
    await page.get_by_role("link", name="Create Service Account").first.click()
    await page.get_by_label("Name").fill("deploy")
    await page.get_by_role("button", name="Create Service Account").click()
    await page.get_by_role("heading", name="deploy", level=1).wait_for()
    service = page.url
    await page.get_by_role("link", name="Generate Key").first.click()
    await page.get_by_label("Name").fill("runner")
    await page.get_by_role("button", name="Generate Key").click()
    await page.get_by_text("This is the only time the key is shown").wait_for()
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name=re.compile("^Download")).click()
    key_file = tmp_path / "key.json"
    await (await downloading.value).save_as(key_file)
    assert "BEGIN" in key_file.read_text()
    await page.get_by_role("link", name="Add Resource").click()
    await page.get_by_role("checkbox", name="Orders").check()
    await page.get_by_role("button", name=re.compile("Add")).last.click()
    await page.goto(service)
    assert "BEGIN" not in await page.content()
    await page.get_by_role("link", name="Orders").wait_for()

    # A job reaches the resource, and its flow appears live.
    job = subprocess.Popen(
        deployment.run_command(key_file, sys.executable, "-c", JOB, "orders.internal", str(port)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip
    try:
        assert job.stdout is not None
        assert await asyncio.to_thread(job.stdout.readline) == "from the private network\n"
        await page.get_by_text(f"orders.internal:{port}").first.wait_for()

        # Revoke: the flow ends, and the receipt shows.
        await page.get_by_role("button", name="Revoke").first.click()
        await page.get_by_role("button", name=re.compile("^Revoke .*")).last.click()
        receipt = page.locator("#receipt")
        await receipt.get_by_text("office-1").wait_for()
        await receipt.get_by_text(re.compile(r"1 flow")).first.wait_for()
        assert await asyncio.to_thread(job.wait, 20) != 0
    finally:
        job.kill()
        job.communicate()

    # Delete.
    await page.goto(service)
    await page.get_by_role("button", name="Delete", exact=True).first.click()
    await page.get_by_role("button", name=re.compile("^Delete .*key")).last.click()
    await page.goto(service)
    await expect(page.get_by_role("main")).not_to_contain_text("runner", timeout=15_000)
    assert said == []


def start_connector(deployment: Deployment, snippet: str, folder: Path) -> None:
    """Paste the shown snippet into a shell, where `klinket` is the one under test, and the state folder is the test's."""
    program = folder / "bin"
    program.mkdir()
    klinket = program / "klinket"
    klinket.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m klinket "$@"\n')
    klinket.chmod(0o755)
    text = snippet.replace("sudo ", "").replace("/var/lib", str(folder / "lib")).replace("/etc/klinket", str(folder / "etc"))
    for name in ("lib", "etc"):
        (folder / name).mkdir(exist_ok=True)
    path = f"{program}:{clean_environment()['PATH']}"
    deployment.start("connector", ["sh", "-c", f"cd {shlex.quote(str(folder))}\n{text}"], PATH=path)
