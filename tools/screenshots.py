"""`./dev screenshots [NAME...] [--folder FOLDER]`: pictures of the console's pages, at two widths, light and dark.

A page is one line in PAGES. Paths may name what the example holds: {service} is the id of the first service, and so on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from klinket.controller import audit_signing
from klinket.controller.app import console_sessions, cuts, users
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.console.gate import COOKIE
from klinket.controller.graphql.global_id import to_global_id
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
    "services": "/team/services",
    "service": "/team/services/{service}",
    "service-new": "/team/services/new",
    "service-empty": "/team/services/{unused}",
    "service-receipt": "/team/services/{revoked}?cut={cut}",
    "service-revoke": "/team/services/{service}",
    "service-keys": "/team/services/keys",
    "service-key-new": "/team/services/{service}/keys/new",
    "service-key": "/team/services/{service}/keys/new",
    "service-resource-add": "/team/services/{service}/resources/new",
    "connectors": "/network/connectors",
    "connector": "/network/connectors/{connector}",
    "connector-new": "/network/connectors/new",
    "connector-tokens": "/network/connectors/{connector}/tokens",
    "resources": "/network/resources",
    "resource": "/network/resources/{resource}",
    "resource-new": "/network/resources/new",
    "resource-edit": "/network/resources/{resource}/edit",
    "resource-access": "/network/resources/{resource}/access",
    "users": "/team/users",
    "user": "/team/users/{user}",
    "user-new": "/team/users/new",
    "groups": "/team/groups",
    "group": "/team/groups/{group}?add=a",
    "group-everyone": "/team/groups/{everyone}",
    "policies": "/policies",
    "policy": "/policies/{policy}?add=b",
    "settings-api-tokens": "/settings/api-tokens",
    "settings-api-token": "/settings/api-tokens/{token}",
    "settings-api-token-new": "/settings/api-tokens/new",
    "settings-network": "/settings/network",
    "settings-relays": "/settings/relays",
    "settings-relay": "/settings/relays/{relay}",
    "settings-sinks": "/settings/sinks",
    "settings-sink": "/settings/sinks/{sink}",
    "settings-sink-kinds": "/settings/sinks/new",
    "settings-sink-new": "/settings/sinks/new/smtp",
    "settings-trust": "/settings/trust",
    "flows": "/activity/flows",
    "flows-denied": "/activity/flows?result=denied&time=7d",
    "flow-denied": "/activity/flows/{denied}",
    "flow": "/activity/flows/{flow}",
    "search": "/search?q=staging",
    "audit": "/activity/audit",
    "audit-event": "/activity/audit/{edited}",
    "audit-verify": "/activity/audit/verify",
    "trends": "/activity/trends?time=7d",
    "cuts": "/activity/cuts",
    "cut": "/activity/cuts/{cut}",
    "cut-pending": "/activity/cuts/{pending}",
    "account": "/account",
    "account-app": "/account/app",
    "account-passkey": "/account/passkeys/new",
    "console-access": "/settings/console-access",
    "console-access-invite": "/settings/console-access/invite",
    "console-access-one": "/settings/console-access/{user}",
    "prove": "/prove",
    "sign-in": "/sign-in",
    "sign-in-link": "/sign-in/link",
    "sign-in-factor": "/sign-in/factor",
    "sign-in-recovery": "/sign-in/recovery",
    "sign-in-set-up": "/sign-in/set-up",
    "sign-in-app": "/sign-in/set-up/app",
}
#: Pages of those who are not signed in ("") or half: all others are Ada's, who is.
STAGES: dict[str, str] = {
    "sign-in": "",
    "sign-in-link": "",
    "sign-in-factor": Stage.SECOND_FACTOR.value,
    "sign-in-recovery": Stage.SECOND_FACTOR.value,
    "sign-in-set-up": Stage.SET_UP.value,
    "sign-in-app": Stage.SET_UP.value,
}
#: Names of pictures that are taken after a button was pressed.
PRESSED = {"service-key": "Generate Key", "service-revoke": "Revoke"}


def _prepare(tx: Transaction, seal: Callable[[bytes, str], bytes]) -> tuple[dict[str, str], dict[str, int]]:
    console_example.fill(tx)
    ada = tx.users.change(tx.users.find(email="ada@example.com")[0].id, state=users.ACTIVE)
    console_example.add_credentials(tx, ada, seal)
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    texts = {
        stage.value: console_sessions.begin(tx, ada, stage, address="192.0.2.10", user_agent=agent, entropy=os.urandom)[1]
        for stage in Stage
    }
    ids = {
        "network": tx.remote_networks.find()[0].id,
        "connector": tx.connectors.find()[0].id,
        "resource": tx.resources.find()[0].id,
        "service": tx.service_accounts.find()[0].id,
        "key": tx.service_keys.find()[0].id,
        "group": tx.groups.find(name="Platform")[0].id,
        "user": ada.id,
        "unused": tx.service_accounts.find(name="load-test")[0].id,
        "revoked": tx.service_accounts.find(name="ci-runners")[0].id,
        "everyone": tx.groups.find(group_type="SYSTEM")[0].id,
        "policy": tx.security_policies.find(name="Production")[0].id,
        "token": tx.api_tokens.find(name="nightly report")[0].id,
        "relay": tx.relays.find()[0].id,
        "sink": tx.sinks.find(name="On call")[0].id,
        "flow": tx.flow_events.newest(1, kind="closed")[0].id,
        "edited": next(row.number for row in tx.audit.find(action="edit") if "before" in row.detail),
        "cut": next(row.cut_id for row in tx.cut_receipts.find(state=cuts.ANSWERED) if row.flows),
        "pending": tx.cuts.newest(1)[0].id,
        "denied": tx.flow_events.newest(1, kind="denied")[0].id,
    }
    return texts, ids


async def _take(wanted: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _say("making an example network")
    with tempfile.TemporaryDirectory(prefix="klinket-screenshots-") as state:
        running = Running(Path(state), host="localhost")
        await running.open()
        cookies, ids = await running.store.write(lambda tx: _prepare(tx, running.master.seal))
        console_example.attach(running.peers, await running.store.read(lambda tx: tx.connectors.find()))
        await audit_signing.sign_waiting(running.store, running.trust, now=True)
        try:
            async with running.listening(), _logged_in(running, ids["service"]), async_playwright() as playwright:
                _say("starting Chromium")
                chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
                for number, name in enumerate(wanted, 1):
                    path = PAGES[name].format(**ids)
                    cookie = cookies.get(STAGES.get(name, Stage.FULL.value), "")
                    for width in WIDTHS:
                        for scheme in SCHEMES:
                            file = folder / f"{name}-{width}-{scheme}.png"
                            await _picture(chromium, running, cookie, path, width, scheme, file, PRESSED.get(name))
                    _say(f"{number} of {len(wanted)}: {name}")
                await chromium.close()
        finally:
            running.store.close()


def _say(text: str) -> None:
    """Print how far it is, at once: all pages take minutes."""
    print(text, flush=True)


@asynccontextmanager
async def _logged_in(running: Running, service: int) -> AsyncIterator[None]:
    """Log in with a key of a service, and stay."""
    _, key = await running.add_key(to_global_id("ServiceAccount", service), days=90, name="GitHub, deploy repository")
    session = await running.log_in(key)
    async with running.attached(session):
        yield


async def _picture(
    chromium: Browser, running: Running, cookie: str, path: str, width: int, scheme: str, file: Path, pressed: str | None
) -> None:
    context = await chromium.new_context(
        viewport={"width": width, "height": 860},
        color_scheme=scheme,  # type: ignore[arg-type]
        ignore_https_errors=True,
    )
    if cookie:
        await context.add_cookies(
            [{"name": COOKIE, "value": cookie, "url": running.config.public_url, "secure": True, "httpOnly": True}]
        )
    page = await context.new_page()
    page.on("console", lambda message: print(f"  {path}: {message.text}") if message.type in ("error", "warning") else None)
    answer = await page.goto(running.config.public_url + "/console" + path, wait_until="load")
    if answer is None or answer.status >= 400:
        raise SystemExit(f"{path}: {answer and answer.status}")
    if pressed is not None:
        await page.get_by_role("button", name=pressed, exact=True).first.click()
        await page.wait_for_load_state("load")
    overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if overflow > 0:
        print(f"  {path}: {overflow} px too wide at {width} px")
    await page.screenshot(path=file, full_page=True)
    await context.close()


def main() -> None:
    """Take the pictures that are asked for; all without a name."""
    parser = argparse.ArgumentParser(
        prog="./dev screenshots", description=__doc__, epilog="example: ./dev screenshots service cuts --folder /tmp/pictures"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="pages: " + ", ".join(PAGES))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to (%(default)s)")
    given = parser.parse_args()
    unknown = set(given.names) - PAGES.keys()
    if unknown:
        parser.error(f"no such page: {', '.join(sorted(unknown))}; there are {', '.join(PAGES)}")
    if shutil.which(CHROMIUM) is None:
        parser.error("Chromium is missing (Debian: apt-get install chromium)")
    asyncio.run(_take(given.names or list(PAGES), given.folder))


if __name__ == "__main__":
    main()
