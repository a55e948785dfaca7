"""`./dev screenshots [NAME...] [--folder FOLDER]`: pictures of the console's pages, at two widths, light and dark.

A page is one line in PAGES. Paths may name what the example holds: {service} is the id of the first service, and so on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from klinket.controller.app import console_sessions, users
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.console.gate import COOKIE
from tests.unit.controller.running import Running
from tools import console_example

FOLDER = Path(__file__).parents[1] / "docs" / "console"
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
#: Where Debian's Chromium is, and what it needs in a container and without the outside (no updates, no first-run pages).
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
#: Name of the picture, and path below /console.
PAGES: dict[str, str] = {
    "overview": "/",
    "remote-networks": "/network/remote-networks",
    "remote-network": "/network/remote-networks/{network}",
    "remote-network-new": "/network/remote-networks/new",
}


def _prepare(tx: Transaction) -> tuple[str, dict[str, int]]:
    console_example.fill(tx)
    ada = tx.users.change(tx.users.find(email="ada@example.com")[0].id, state=users.ACTIVE)
    _, text = console_sessions.begin(tx, ada, Stage.FULL, address="192.0.2.10", user_agent="Firefox", entropy=os.urandom)
    ids = {
        "network": tx.remote_networks.find()[0].id,
        "connector": tx.connectors.find()[0].id,
        "resource": tx.resources.find()[0].id,
        "service": tx.service_accounts.find()[0].id,
        "key": tx.service_keys.find()[0].id,
        "group": tx.groups.find(name="Platform")[0].id,
        "user": ada.id,
    }
    return text, ids


async def _take(wanted: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="klinket-screenshots-") as state:
        running = Running(Path(state))
        await running.open()
        cookie, ids = await running.store.write(_prepare)
        try:
            async with running.listening(), async_playwright() as playwright:
                chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
                for name in wanted:
                    path = PAGES[name].format(**ids)
                    for width in WIDTHS:
                        for scheme in SCHEMES:
                            await _picture(
                                chromium, running, cookie, path, width, scheme, folder / f"{name}-{width}-{scheme}.png"
                            )
                    print(name, flush=True)
                await chromium.close()
        finally:
            running.store.close()


async def _picture(chromium: Browser, running: Running, cookie: str, path: str, width: int, scheme: str, file: Path) -> None:
    context = await chromium.new_context(
        viewport={"width": width, "height": 860},
        color_scheme=scheme,  # type: ignore[arg-type]
        ignore_https_errors=True,
    )
    await context.add_cookies(
        [{"name": COOKIE, "value": cookie, "url": running.config.public_url, "secure": True, "httpOnly": True}]
    )
    page = await context.new_page()
    page.on("console", lambda message: print(f"  {path}: {message.text}") if message.type in ("error", "warning") else None)
    answer = await page.goto(running.config.public_url + "/console" + path, wait_until="load")
    if answer is None or answer.status >= 400:
        raise SystemExit(f"{path}: {answer and answer.status}")
    overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if overflow > 0:
        print(f"  {path}: {overflow} px too wide at {width} px")
    await page.screenshot(path=file, full_page=True)
    await context.close()


def main() -> None:
    """Take the pictures that are asked for; all without a name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    unknown = set(given.names) - PAGES.keys()
    if unknown:
        parser.error(f"no such page: {', '.join(sorted(unknown))}; there are {', '.join(PAGES)}")
    if shutil.which(CHROMIUM) is None:
        parser.error("Chromium is missing (Debian: apt-get install chromium)")
    asyncio.run(_take(given.names or list(PAGES), given.folder))


if __name__ == "__main__":
    main()
