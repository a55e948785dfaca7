"""The console in a real Chromium: pages of a controller that listens, opened as a user who is signed in."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.async_api import BrowserContext, Page, async_playwright

from klinket.controller.console.gate import COOKIE
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running

PROGRAM = "/usr/bin/chromium"
#: What it needs in a container, and nothing from outside: no updates, no first-run pages.
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: For test modules: they are skipped aloud where there is no Chromium.
needs_chromium = pytest.mark.skipif(
    shutil.which(PROGRAM) is None, reason="Chromium is missing (Debian: apt-get install chromium)"
)


@asynccontextmanager
async def chromium(
    running: Running, user: Browser | None = None, *, javascript: bool = True, scheme: str = "light", width: int = 1280
) -> AsyncIterator[BrowserContext]:
    """Open a Chromium whose pages' addresses begin at /console/; `running` must listen already (Running.listening)."""
    options: dict[str, Any] = {
        "base_url": running.config.public_url,
        "color_scheme": scheme,
        "ignore_https_errors": True,
        "java_script_enabled": javascript,
        "viewport": {"width": width, "height": 900},
    }
    async with async_playwright() as playwright:
        # Known by its key, the controller's certificate is no error: pages with one get no passkeys.
        known = f"--ignore-certificate-errors-spki-list={await asyncio.to_thread(_key_digest, running.config.listen.port)}"
        program = await playwright.chromium.launch(executable_path=PROGRAM, args=[*OPTIONS, known])
        context = await program.new_context(**options)
        context.set_default_timeout(15_000)
        if user is not None:
            url = running.config.public_url
            await context.add_cookies([{"name": COOKIE, "value": user.cookie, "url": url, "secure": True, "httpOnly": True}])
        try:
            yield context
        finally:
            await program.close()


def _key_digest(port: int) -> str:
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    return b64encode(sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()).decode()


async def faults(page: Page) -> list[str]:
    """Return what axe finds serious or critical on a page, each with the places; needs JavaScript."""
    found = await Axe().run(page)
    return [
        f"{fault['id']}: {fault['help']}: {[node['html'][:160] for node in fault['nodes']][:5]}"
        for fault in found.response["violations"]
        if fault["impact"] in ("serious", "critical")
    ]


def complaints(page: Page) -> list[str]:
    """Return a list that fills with what the browser complains about: errors of scripts, refused files, broken policy."""
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    return said
