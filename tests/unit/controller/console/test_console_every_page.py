"""Every page of the console, filled as a company would fill it: well formed, complete, and usable by everybody."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from starlette.routing import compile_path

from klinket.controller import audit_signing
from klinket.controller.console.routes import PAGES
from tests.unit.controller.console.chromium import chromium, complaints, faults, needs_chromium
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running
from tools import console_example, console_pages

pytestmark = [pytest.mark.sqlite_only, pytest.mark.timeout(600)]
#: Pages asked in other ways as well.
ASKED = (
    "/activity/flows?result=live",
    "/activity/flows?service=nobody",
    "/activity/flows?result=denied&time=7d",
    "/activity/trends?time=30d",
    "/activity/audit?object=billing",
    "/activity/audit/verify?after=1",
    "/search?q=staging",
    "/search?q=zebra",
)
#: What a value that is not there would leave behind.
LEFT_BEHIND = re.compile(r"\bundefined\b|\bNone\b|&lt;function|&lt;bound method|\{\{|\}\}|\bNaN\b")
#: Attributes that name other elements by their ids.
REFERENCES = re.compile(r'\s(?:for|list|aria-labelledby|aria-describedby|aria-controls|form|data-copy)="([^"]*)"')
ROUTES = [compile_path(route.path)[0] for route in PAGES if route.method == "GET"]
AREAS = {"/".join(route.path.split("/")[:3]) for route in PAGES}


@pytest.fixture
async def paths(controller: Running, admin: Browser) -> list[str]:
    await controller.write(console_example.fill)
    await audit_signing.sign_waiting(controller.store, controller.trust, now=True)
    found = await controller.read(lambda tx: console_pages.pages(console_pages.ids_of(tx)))
    return list(dict.fromkeys([*found, *(path for path in ASKED if any(path.startswith(page) for page in found))]))


@pytest.fixture
async def listening(controller: Running, paths: list[str]) -> AsyncIterator[Running]:
    async with controller.listening():
        yield controller


def unknown_links(text: str) -> set[str]:
    """Return links to pages that no route serves, of areas that there are."""
    found = set()
    for link in re.findall(r'(?:href|hx-get)="/console(/[^"?#]*)', text):
        area = "/".join(link.split("/")[:3])
        if not link.startswith("/static/") and area in AREAS and not any(route.match(link) for route in ROUTES):
            found.add(link)
    return found


def test_what_is_looked_for_is_found() -> None:
    assert unknown_links('<a href="/console/network/remote-networks/x/y">') == {"/network/remote-networks/x/y"}
    assert unknown_links('<a href="/console/network/remote-networks/7?page=2">') == set()
    assert LEFT_BEHIND.search("<td>None</td>")
    assert not LEFT_BEHIND.search("<td>none: Nonesuch</td>")


async def test_every_page_is_complete_and_well_formed(controller: Running, admin: Browser, paths: list[str]) -> None:
    faulty: dict[str, object] = {}
    for path in paths:
        answer = await admin.get(path)
        text = answer.text
        ids = Counter(re.findall(r'\sid="([^"]*)"', text))
        named = {one for value in REFERENCES.findall(text) for one in value.split()}
        wrong = [
            *([f"status {answer.status_code}"] if answer.status_code != 200 else []),
            *(f"id {one!r}" for one, count in ids.items() if count > 1 or not re.fullmatch(r"[A-Za-z][\w-]*", one)),
            *(f"no element {one!r}" for one in named - set(ids)),
            *(f"no page {link}" for link in unknown_links(text)),
            *(f"left behind: {text[max(0, one.start() - 40) : one.end() + 20]!r}" for one in LEFT_BEHIND.finditer(text)),
        ]
        if "<html" in text and text.count("<h1") != 1:
            wrong.append(f"{text.count('<h1')} first headings")
        if wrong:
            faulty[path] = wrong
    assert faulty == {}


@needs_chromium
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_fault_on_any_page(
    listening: Running, admin: Browser, paths: list[str], scheme: str, scripts: bool
) -> None:
    faulty: dict[str, object] = {}
    async with chromium(listening, admin, scheme=scheme, width=1280 if scripts else 390) as context:
        if not scripts:  # axe itself is a script: so those of the pages are kept from them
            await context.route("**/*.js", lambda route: route.abort())
        page = await context.new_page()
        said = complaints(page)
        for path in paths:
            await page.goto("/console" + path)
            wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            found = await faults(page)
            if scripts and said:
                found.append(f"complaints: {said}")
            if wide > 0:
                found.append(f"{wide} px too wide")
            said.clear()
            if found:
                faulty[path] = found
    assert faulty == {}
