"""Nobody gets past the gate: every page and action, anonymously, half signed in, with too low a role, from another site."""

from __future__ import annotations

import re

import pytest

from klinket.controller.app.console_sessions import MAX_AGE_MS, MAX_IDLE_MS, PROOF_MS, Stage
from klinket.controller.console.gate import COOKIE, local_path
from klinket.controller.console.headers import CONTENT_SECURITY_POLICY
from klinket.controller.console.route import ConsoleRoute
from klinket.controller.console.routes import PAGES
from klinket.domain.role import Permission, permissions_of
from tests.unit.controller.console.conftest import ROLES, Browser, signed_in
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only


def path_of(route: ConsoleRoute) -> str:
    """Return a path that leads to a route: numbers are 1, texts are "x"."""
    return re.sub(r"{\w+:int}", "1", re.sub(r"{\w+(:path)?}", "x", route.path)).replace("{", "").replace("}", "")


def name_of(route: ConsoleRoute) -> str:
    return f"{route.method} {route.path}"


async def send(browser: Browser, route: ConsoleRoute, **named: str) -> int:
    answer = await (browser.get(path_of(route), **named) if route.method == "GET" else browser.post(path_of(route), **named))
    return answer.status_code


ACTIONS = [route for route in PAGES if route.method == "POST"]


async def test_without_a_session_every_page_leads_to_the_sign_in_and_no_action_is_done(controller: Running) -> None:
    before = await controller.read(lambda tx: tx.head())
    for route in PAGES:
        browser = Browser(controller)
        answer = await (browser.get(path_of(route)) if route.method == "GET" else browser.post(path_of(route)))
        assert answer.status_code == 303, name_of(route)
        assert answer.headers["location"].startswith("/console/sign-in?next="), name_of(route)
    assert await controller.read(lambda tx: tx.head()) == before


@pytest.mark.parametrize("stage", [Stage.SECOND_FACTOR, Stage.SET_UP])
async def test_a_sign_in_that_is_not_finished_opens_nothing(controller: Running, stage: Stage) -> None:
    browser = await signed_in(controller, "ADMIN", stage=stage)
    for route in PAGES:
        answer = await (browser.get(path_of(route)) if route.method == "GET" else browser.post(path_of(route)))
        assert answer.status_code == 303, name_of(route)
        assert answer.headers["location"].startswith("/console/sign-in"), name_of(route)


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_opens_what_it_may_and_nothing_else(controller: Running, role: str) -> None:
    browser = await signed_in(controller, role)
    for route in PAGES:
        if route.permission in permissions_of(role):
            continue
        status = await send(browser, route)
        # A role without any console has no session at all.
        assert status == (403 if permissions_of(role) else 303), name_of(route)


async def test_every_route_says_which_permission_it_needs_and_no_action_is_open_to_readers() -> None:
    for route in PAGES:
        assert isinstance(route.permission, Permission)
        assert route.method == "GET" or route.permission is not Permission.READ or route.path.startswith("/account"), name_of(
            route
        )


@pytest.mark.parametrize("sent", [
    {"origin": "https://evil.example", "sec_fetch_site": "cross-site"},
    {"origin": "https://evil.example", "sec_fetch_site": ""},
    {"origin": "null", "sec_fetch_site": "cross-site"},
    {"origin": "null", "sec_fetch_site": ""},
    {"origin": "https://evil.example", "sec_fetch_site": "same-origin"},
    {"origin": "", "sec_fetch_site": "same-site"},
    {"origin": "", "sec_fetch_site": "none"},
    {"origin": "", "sec_fetch_site": ""},
])  # fmt: skip
async def test_no_action_is_done_for_another_site(controller: Running, sent: dict[str, str]) -> None:
    admin = await signed_in(controller, "ADMIN")
    for route in ACTIONS:
        assert (await admin.post(path_of(route), **sent)).status_code == 403, name_of(route)


@pytest.mark.parametrize("token", ["", "0" * 48, "not a token"])
async def test_no_action_is_done_without_the_token_of_the_session(controller: Running, token: str) -> None:
    admin = await signed_in(controller, "ADMIN")
    for route in ACTIONS:
        assert (await admin.post(path_of(route), token=token)).status_code == 403, name_of(route)


async def test_the_token_of_another_session_is_as_good_as_none(controller: Running) -> None:
    admin, other = await signed_in(controller, "ADMIN"), await signed_in(controller, "ADMIN", email="other@example.com")
    for route in ACTIONS:
        assert (await admin.post(path_of(route), token=other.form_token)).status_code == 403, name_of(route)


async def test_an_action_takes_a_form_and_nothing_else(admin: Browser) -> None:
    for content_type in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
        for route in ACTIONS:
            answer = await admin.post(path_of(route), content_type=content_type)
            assert answer.status_code == 400, name_of(route)


async def test_an_error_is_a_page_or_a_part_and_never_a_trace(admin: Browser) -> None:
    page, part = await admin.get("/network/remote-networks/9"), await admin.get("/network/remote-networks/9", hx_request="true")
    assert page.status_code == part.status_code == 404
    assert "<html" in page.text
    assert "<html" not in part.text
    assert "does not exist" in page.text
    assert "does not exist" in part.text
    assert "Traceback" not in page.text


async def test_every_answer_bears_the_headers(admin: Browser) -> None:
    for path in ("/", "/nothing", "/network/remote-networks"):
        headers = (await admin.get(path)).headers
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none';")
    assert "frame-ancestors 'none'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY


async def test_no_page_holds_anything_inline(admin: Browser) -> None:
    for route in PAGES:
        if route.method == "POST" or route.path == "/events":
            continue
        text = (await admin.get(path_of(route))).text
        assert not re.search(r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=|javascript:", text), name_of(route)


@pytest.mark.parametrize("hours", [MAX_IDLE_MS / 3_600_000, MAX_AGE_MS / 3_600_000])
async def test_a_session_ends_by_age_and_by_idleness(controller: Running, admin: Browser, hours: float) -> None:
    assert (await admin.get("/")).status_code == 200
    controller.offset = hours * 3600 + 1
    assert (await admin.get("/")).status_code == 303


async def test_a_user_who_is_disabled_or_loses_the_role_is_out_at_once(
    controller: Running, admin: Browser, devops: Browser
) -> None:
    await controller.write(lambda tx: [tx.users.change(row.id, state="DISABLED") for row in tx.users.find(role="ADMIN")])
    await controller.write(lambda tx: [tx.users.change(row.id, role="MEMBER") for row in tx.users.find(role="DEVOPS")])
    assert (await admin.get("/")).status_code == 303
    assert (await devops.get("/")).status_code == 303


async def test_the_admin_api_takes_no_cookie(controller: Running, admin: Browser) -> None:
    answer = await controller.post("/api/graphql/", {"query": "{ __typename }"}, headers={"cookie": f"{COOKIE}={admin.cookie}"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "asked", ["https://evil.example/", "//evil.example", "/\\evil.example", "/api/graphql/", "/console/\n", ""]
)
def test_a_sign_in_leads_to_the_console_and_nowhere_else(asked: str) -> None:
    assert local_path(asked) == "/console/"


def test_a_sign_in_leads_back_to_where_one_was() -> None:
    assert local_path("/console/team/services/3?page=2") == "/console/team/services/3?page=2"


async def test_a_browser_is_led_to_the_console_and_a_program_is_told_who_is_here(controller: Running) -> None:
    assert (await controller.get("/", headers={"accept": "text/html"})).headers["location"] == "/console/"
    assert (await controller.get("/")).json()["product"] == "klinket"


@pytest.mark.parametrize("path", [
    "/settings/api-tokens/new", "/settings/api-tokens/{id:int}", "/settings/api-tokens/{id:int}/enable",
    "/settings/sinks/{id:int}", "/settings/sinks/{id:int}/enable", "/settings/relays/new",
    "/team/users/new", "/team/users/{id:int}", "/network/connectors/{id:int}/tokens",
])  # fmt: skip
async def test_what_gives_somebody_more_needs_a_recent_proof(controller: Running, admin: Browser, path: str) -> None:
    (route,) = [route for route in ACTIONS if route.path == path]
    controller.offset = PROOF_MS / 1000 + 1
    answer = await admin.post(path_of(route))
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/console/prove?next=")


async def test_a_number_without_end_in_a_path_leads_nowhere(admin: Browser) -> None:
    assert (await admin.get("/team/services/" + "9" * 5_000)).status_code == 404
    assert (await Browser(admin.running).get("/team/services/" + "9" * 5_000)).status_code == 404
