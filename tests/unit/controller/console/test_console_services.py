"""Team > Services: accounts, keys that are shown once, access, sessions, and the receipts of what was ended."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from klinket.controller.app import cuts, flow_events, service_keys
from klinket.controller.app.access import grant
from klinket.controller.app.ports import Transaction
from klinket.controller.console.team.services.listing import allowed
from klinket.controller.graphql.global_id import to_global_id
from klinket.domain.audit import SYSTEM
from klinket.domain.identifiers import Kid
from klinket.domain.service_key import SECONDS_PER_DAY, KeyState
from klinket.wire import signing
from klinket.wire.control import FlowEvent
from klinket.wire.key_file import parse_key_file
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running
from tests.unit.controller.test_controller_login import attempt

pytestmark = pytest.mark.sqlite_only
LIST = "/team/services"
ONE = LIST + "/1"
KEYS = ONE + "/keys"


@dataclass
class World:
    """Network `office` with connector 1 and resources `Database` (1) and `Cache` (2), service account `ci` (1)."""

    running: Running
    resources: list[str]

    async def key(self, name: str = "runner", days: int = 0) -> int:
        """Return the number of a new key."""
        await self.running.add_key(self.account, days, name)
        return await self.running.read(lambda tx: tx.service_keys.newest(1)[0].id)

    account: str = ""

    async def flows(self, count: int, key: int = 1, kind: str = "established", **more: Any) -> None:
        """Let the connector tell of flows of a key to resource 1."""

        def keep(tx: Transaction) -> None:
            row = tx.service_keys.get(key)
            assert row is not None
            account = tx.service_accounts.get(row.service_account_id)
            assert account is not None
            told = [
                FlowEvent(
                    event=kind, flow=os.urandom(8).hex(), time_ms=tx.now_ms, session="s", service_account=account.uuid,
                    key=row.kid, resource=1, host="db.internal", port=5432, protocol="tcp", **more,
                )
                for _ in range(count)
            ]  # fmt: skip
            flow_events.keep(tx, 1, tx.now_ms * 1000 + int.from_bytes(os.urandom(2)), told)

        await self.running.write(keep)


@pytest.fixture
async def world(controller: Running) -> World:
    network = await controller.add_network()
    await controller.add_connector(network, "office-1")
    resources = [await controller.add_resource(network), await controller.add_resource(network, "Cache", "cache.internal")]
    made = World(controller, resources)
    made.account = await controller.add_account("ci")
    return made


async def a_day_later(running: Running) -> None:
    """Move the clock, and let people who are signed in still be so."""
    running.offset = SECONDS_PER_DAY + 1

    def renew(tx: Transaction) -> None:
        for row in tx.console_sessions.find():
            tx.console_sessions.change(row.id, created_at_ms=tx.now_ms, last_seen_ms=tx.now_ms, proved_at_ms=tx.now_ms)

    await running.write(renew)


def key_text(page: httpx2.Response) -> str:
    """Return the key that a page shows."""
    found = re.search(r'<pre id="key-text"[^>]*>(.*?)</pre>', page.text, re.S)
    assert found is not None
    return html.unescape(found.group(1))


async def generate(browser: Browser, path: str = KEYS + "/new", **fields: str) -> httpx2.Response:
    """Open the form, fill it in, send it."""
    form = await browser.get(path)
    found = re.search(r'name="form_id" value="(\w+)"', form.text)
    assert found is not None
    return await browser.post(path.partition("?")[0], {"form_id": found.group(1), **fields})


async def only_key(running: Running) -> Any:
    (row,) = await running.read(lambda tx: tx.service_keys.find())
    return row


# ---- the list, and accounts


async def test_an_empty_list_says_the_next_step_to_who_may_do_it(admin: Browser, devops: Browser, support: Browser) -> None:
    assert (await admin.get(LIST)).text.count("Create Service Account") == 2
    for other in (devops, support):
        text = (await other.get(LIST)).text
        assert "No services yet" in text
        assert "Create Service Account" not in text


async def test_an_account_is_created_renamed_and_deleted_as_the_user_who_did_it(controller: Running, admin: Browser) -> None:
    made = await admin.post(LIST + "/new", {"name": "deploy"})
    place = made.headers["location"]
    assert (made.status_code, place) == (303, "/console" + ONE)
    page = await admin.get(place)
    assert "Service account deploy created" in page.text
    renamed = await admin.post(place + "/rename", {"name": "deploy-production", "seen": admin.seen(page)})
    assert renamed.status_code == 303
    assert "deploy-production" in (await admin.get(LIST)).text
    assert (await admin.post(place + "/delete")).headers["location"] == "/console" + LIST
    assert "Service account deploy-production deleted" in (await admin.get(LIST)).text
    audit = [(row.action, row.actor["info"]["name"]) for row in (await controller.audit())[-4:]]
    assert audit == [(action, "admin@example.com") for action in ("create", "edit", "delete", "cut")]


async def test_a_name_that_is_taken_or_empty_is_refused_and_kept_in_the_form(world: World, admin: Browser) -> None:
    assert (await admin.post(LIST + "/new", {"name": " "})).status_code == 400
    taken = await admin.post(LIST + "/new", {"name": "ci"})
    assert taken.status_code == 409
    assert 'value="ci"' in taken.text
    assert "exists already" in taken.text


async def test_of_two_who_rename_the_second_is_told(controller: Running, world: World, admin: Browser) -> None:
    seen = admin.seen(await admin.get(ONE))
    controller.offset = 1
    first = await admin.post(ONE + "/rename", {"name": "theirs", "seen": seen})
    second = await admin.post(ONE + "/rename", {"name": "mine", "seen": seen})
    assert (first.status_code, second.status_code) == (303, 409)
    assert "somebody has changed this meanwhile" in second.text
    assert 'value="mine"' in second.text


async def test_the_list_counts_keys_by_state_resources_and_flows(controller: Running, world: World, admin: Browser) -> None:
    await world.key(), await world.key("soon", 7), await world.key("old", 1)
    revoked = await world.key("gone")
    await controller.write(lambda tx: service_keys.revoke(tx, SYSTEM, service_keys.get(tx, revoked, revoked)))
    await controller.change(
        "mutation ($i: ID!, $r: [ID]) { serviceAccountUpdate(id: $i, resourceIds: $r) { ok error } }",
        i=world.account,
        r=world.resources,
    )
    await a_day_later(controller)
    await world.flows(3)
    row = re.search(r"<tbody>(.*?)</tbody>", (await admin.get(LIST)).text, re.S)
    assert row is not None
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row.group(1)))
    assert words.split() == ["ci", "2", "active", "1", "expiring", "1", "revoked", "1", "expired", "2", "never", "3", "3"]
    assert "3 flows in the last 7 days" in row.group(1)


async def test_services_are_searched_by_name_and_paged(controller: Running, admin: Browser) -> None:
    def add(tx: Transaction) -> None:
        for number in range(60):
            tx.service_accounts.add(name=f"job {number:02d}", uuid=f"{number:08d}-0000-4000-8000-000000000000")

    await controller.write(add)
    first, second = (await admin.get(LIST)).text, (await admin.get(LIST + "?page=2")).text
    assert "job 49" in first
    assert "job 50" not in first
    assert "job 59" in second
    found = (await admin.get(LIST + "?q=OB+07")).text
    assert "job 07" in found
    assert "job 08" not in found
    assert "Nothing found" in (await admin.get(LIST + "?q=nobody")).text


async def test_markup_in_names_is_text(controller: Running, admin: Browser) -> None:
    place = (await admin.post(LIST + "/new", {"name": "<b>ci</b>"})).headers["location"]
    await generate(admin, name="<i>key</i>")
    for path in (LIST, place, LIST + "/keys"):
        text = (await admin.get(path)).text
        assert "<b>ci" not in text
        assert "<i>key" not in text


# ---- keys: shown once


async def test_a_key_is_shown_once_and_is_nowhere_else(controller: Running, world: World, admin: Browser) -> None:
    page = await generate(admin, name="GitHub")
    assert page.status_code == 200
    assert page.headers["cache-control"] == "no-store"
    assert "This is the only time the key is shown" in page.text
    key = parse_key_file(key_text(page))
    row = await only_key(controller)
    assert (row.name, row.kid, row.origin) == ("GitHub", key.key_id, "controller")
    secret = json.loads(key_text(page))["private_key"].split("\n")[1]
    for path in (ONE, LIST, LIST + "/keys", KEYS + "/new"):
        assert secret not in (await admin.get(path)).text
    assert secret.encode() not in controller.everything_stored()
    assert secret not in str(await controller.audit())
    await controller.log_in(key)  # and it is a key


async def test_a_form_that_is_sent_again_makes_no_second_key_and_shows_nothing(
    controller: Running, world: World, admin: Browser
) -> None:
    form = await admin.get(KEYS + "/new")
    fields = {"form_id": re.findall(r'name="form_id" value="(\w+)"', form.text)[0]}
    assert (await admin.post(KEYS + "/new", fields)).status_code == 200
    again = await admin.post(KEYS + "/new", fields)
    assert (again.status_code, again.headers["location"]) == (303, "/console" + ONE)
    page = (await admin.get(ONE)).text
    assert "cannot be shown again" in page
    assert "PRIVATE KEY" not in page
    await only_key(controller)


async def test_a_form_that_was_refused_can_be_sent_again(controller: Running, world: World, admin: Browser) -> None:
    form_id = re.findall(r'name="form_id" value="(\w+)"', (await admin.get(KEYS + "/new")).text)[0]
    wrong = await admin.post(KEYS + "/new", {"form_id": form_id, "days": "other", "expirationTime": "400", "name": "kept"})
    assert wrong.status_code == 400
    assert "0-365" in wrong.text
    assert 'value="kept"' in wrong.text
    assert (await admin.post(KEYS + "/new", {"form_id": form_id})).status_code == 200
    assert (await admin.post(KEYS + "/new", {"form_id": "of no form"})).status_code == 400
    await only_key(controller)


@pytest.mark.parametrize(
    ("fields", "days"),
    [({}, 365), ({"days": "30"}, 30), ({"days": "90"}, 90), ({"days": "0"}, None), ({"days": "other", "expirationTime": "5"}, 5)],
)
async def test_keys_live_a_year_unless_told_otherwise(
    controller: Running, world: World, admin: Browser, fields: dict[str, str], days: int | None
) -> None:
    await generate(admin, **fields)
    row = await only_key(controller)
    lifetime = None if row.expires_at_ms is None else (row.expires_at_ms - row.created_at_ms) / 1000 / SECONDS_PER_DAY
    assert lifetime == days


async def test_the_form_has_the_default_the_presets_and_a_warning_on_never(world: World, admin: Browser) -> None:
    text = (await admin.get(KEYS + "/new")).text
    assert 'name="days" value="365" checked' in text
    assert re.findall(r'name="days" value="(\w+)"', text) == ["30", "90", "365", "0", "other"]
    assert "A key that never expires opens everything of this service" in text


async def test_the_key_is_saved_as_a_file_without_a_script(controller: Running, world: World, admin: Browser) -> None:
    answer = await generate(admin, as_file="yes")
    assert answer.headers["content-disposition"] == 'attachment; filename="ci.json"'
    assert answer.headers["cache-control"] == "no-store"
    await controller.log_in(parse_key_file(answer.content))


async def test_an_own_public_key_is_taken_in_and_no_private_key_is_shown(
    controller: Running, world: World, admin: Browser
) -> None:
    own = signing.public_key_to_pem(signing.generate_private_key().public_key())
    page = await generate(admin, pair="own", publicKey=own)
    assert "This is the only time" not in page.text
    assert json.loads(key_text(page))["private_key"] == ""
    row = await only_key(controller)
    assert (row.origin, row.public_key) == ("owner", own)


@pytest.mark.parametrize("given", ["", "no key", "-----BEGIN PRIVATE KEY-----"])
async def test_what_is_no_public_key_is_refused(controller: Running, world: World, admin: Browser, given: str) -> None:
    answer = await generate(admin, pair="own", publicKey=given)
    assert answer.status_code == 400
    assert await controller.read(lambda tx: tx.service_keys.count()) == 0


async def test_only_who_has_proved_lately_who_they_are_makes_keys(controller: Running, world: World, admin: Browser) -> None:
    await controller.write(lambda tx: [tx.console_sessions.change(row.id, proved_at_ms=0) for row in tx.console_sessions.find()])
    for answer in (await admin.get(KEYS + "/new"), await admin.post(KEYS + "/new", {"form_id": "0" * 32})):
        assert answer.status_code == 303
        assert answer.headers["location"] == "/console/prove?next=%2Fconsole%2Fteam%2Fservices%2F1%2Fkeys%2Fnew"  # and back
    assert await controller.read(lambda tx: tx.service_keys.count()) == 0


# ---- keys: what each state allows


@pytest.mark.parametrize(
    ("state", "words"),
    [(KeyState.ACTIVE, {"rename", "revoke"}), (KeyState.REVOKED, {"delete"}), (KeyState.EXPIRED, {"delete"})],
)
async def test_a_state_allows_exactly_what_the_lifecycle_says(
    controller: Running, world: World, admin: Browser, state: KeyState, words: set[str]
) -> None:
    assert allowed(state) == words
    number = await world.key("runner", 1)
    if state is KeyState.REVOKED:
        await admin.post(f"{KEYS}/{number}/revoke")
    elif state is KeyState.EXPIRED:
        await a_day_later(controller)
    text = (await admin.get(ONE)).text
    assert set(re.findall(rf"/keys/{number}/(\w+)", text)) == words
    assert state.value.capitalize() in text
    for word in {"rename", "revoke", "delete"} - words:
        answer = await admin.post(f"{KEYS}/{number}/{word}", {"name": "other", "seen": await seen_key(controller, number)})
        assert answer.status_code in (400, 409), word


async def seen_key(running: Running, number: int) -> str:
    row = await running.read(lambda tx: tx.service_keys.get(number))
    assert row is not None
    return str(row.updated_at_ms)


async def test_a_key_is_renamed_by_who_has_seen_it(controller: Running, world: World, admin: Browser) -> None:
    number = await world.key()
    seen = await seen_key(controller, number)
    controller.offset = 1
    assert (await admin.post(f"{KEYS}/{number}/rename", {"name": "new", "seen": seen})).status_code == 303
    assert (await admin.post(f"{KEYS}/{number}/rename", {"name": "newer", "seen": seen})).status_code == 409
    assert (await only_key(controller)).name == "new"


async def test_who_may_not_change_sees_no_buttons(controller: Running, world: World, devops: Browser, support: Browser) -> None:
    number = await world.key()
    await controller.write(lambda tx: allow(tx, 1))
    for browser in (devops, support):
        text = (await browser.get(ONE)).text
        assert "runner" in text
        assert not re.search(
            r"Generate Key|Add Resource|Rename|Revoke|Remove|Delete|<form method=\"post\" action=\"/console/team", text
        )
        assert (await browser.post(f"{KEYS}/{number}/revoke")).status_code == 403


async def test_a_key_of_another_service_is_not_there(controller: Running, world: World, admin: Browser) -> None:
    number = await world.key()
    await controller.add_account("other")
    for word in ("rename", "revoke", "delete"):
        assert (await admin.post(f"{LIST}/2/keys/{number}/{word}", {"name": "x"})).status_code == 404
    assert (await only_key(controller)).revoked_at_ms is None


async def test_revoking_says_what_it_ends_and_shows_the_receipt_as_it_comes_in(
    controller: Running, world: World, admin: Browser
) -> None:
    number = await world.key()
    await controller.write(lambda tx: allow(tx, 1))
    await world.flows(2, number)
    assert "<strong>2 live flows</strong>" in (await admin.get(ONE)).text
    place = (await admin.post(f"{KEYS}/{number}/revoke")).headers["location"]
    assert re.fullmatch(r"/console/team/services/1\?cut=\d+", place)
    waiting = (await admin.get(place)).text
    assert "0 of 1 connectors answered" in waiting
    assert "has not answered" in waiting
    cut = int(place.partition("=")[2])
    flows = [{"flow": "1"}, {"flow": "2"}]
    await controller.write(lambda tx: cuts.answer(tx, cut, 1, stopped_at_ms=tx.now_ms, took_ms=12.4, flows=flows))
    answered = (await admin.get(place)).text
    assert "Every connector answered" in answered
    assert "ended 2 flows in 12 ms" in re.sub(r"\s+", " ", answered)


@pytest.mark.parametrize("cut", ["9", "x", "-1", "9" * 40])
async def test_the_receipt_of_no_cut_is_not_shown(world: World, admin: Browser, cut: str) -> None:
    page = await admin.get(f"{ONE}?cut={cut}")
    assert page.status_code == 200
    assert 'id="receipt"' not in page.text


# ---- rotation


async def test_a_key_takes_over_from_another_with_an_overlap(controller: Running, world: World, admin: Browser) -> None:
    number = await world.key("old")
    assert f'value="{number}" selected' in (await admin.get(f"{KEYS}/new?replaces={number}")).text
    page = await generate(admin, name="new", replaces=str(number), overlapHours="5")
    assert "replaced by new" in (await admin.get(ONE)).text
    new = await controller.read(lambda tx: tx.service_keys.newest(1)[0])
    assert (new.replaces_key_id, new.overlap_ends_ms) == (number, new.created_at_ms + 5 * 3_600_000)
    await controller.log_in(parse_key_file(key_text(page)))
    old = await controller.read(lambda tx: tx.service_keys.get(number))
    assert old is not None
    assert old.revoked_at_ms is not None  # the first use of the new one has ended it


async def test_a_key_that_is_replaced_already_or_of_another_service_is_refused(
    controller: Running, world: World, admin: Browser
) -> None:
    number = await world.key("old")
    await generate(admin, replaces=str(number))
    assert (await generate(admin, replaces=str(number))).status_code == 409
    await controller.add_account("other")
    assert (await generate(admin, LIST + "/2/keys/new", replaces=str(number))).status_code == 404
    assert (await generate(admin, replaces="x")).status_code == 400
    assert (await generate(admin, replaces=str(number), overlapHours="721")).status_code in (400, 409)
    assert await controller.read(lambda tx: tx.service_keys.count()) == 2


# ---- all keys


async def test_the_list_of_all_keys_shows_those_that_end_soon_first(controller: Running, world: World, admin: Browser) -> None:
    for name, days in (("never", 0), ("far", 300), ("near", 20), ("nearer", 3), ("over", 1)):
        await world.key(name, days)
    revoked = await world.key("gone", 10)
    await controller.write(lambda tx: service_keys.revoke(tx, SYSTEM, service_keys.get(tx, revoked, revoked)))
    await a_day_later(controller)

    async def names(query: str) -> list[str]:
        text = (await admin.get(LIST + "/keys" + query)).text
        return re.findall(r'<th scope="row"><a[^>]*>([^<]+)</a>', text)

    assert await names("") == ["nearer", "near", "far", "never"]
    assert await names("?show=expiring") == ["nearer", "near"]
    assert await names("?show=unlimited") == ["never"]
    assert await names("?show=revoked") == ["gone"]
    assert await names("?show=expired") == ["over"]
    assert await names("?show=all") == ["gone", "over", "nearer", "near", "far", "never"]
    assert await names("?show=nonsense&q=NEAR") == ["nearer", "near"]
    assert await names("?service=1&q=ar") == ["nearer", "near", "far"]
    assert (await admin.get(LIST + "/keys?service=7")).status_code == 404
    assert "2 active keys of all services expire within 30 days, 1 within 7 days" in (await admin.get(LIST + "/keys")).text


# ---- resources


def allow(tx: Transaction, *resources: int) -> None:
    """Grant resources to account 1."""
    account = tx.service_accounts.get(1)
    assert account is not None
    for id in resources:
        row = tx.resources.get(id)
        assert row is not None
        grant(tx, SYSTEM, row, account)


async def test_resources_are_found_added_and_shown(controller: Running, world: World, admin: Browser) -> None:
    found = (await admin.get(ONE + "/resources/new?q=CACHE")).text
    assert "cache.internal" in found
    assert "db.internal" not in found
    added = await admin.post(ONE + "/resources/new", {"resource": ["1", "2"], "ends": ""})
    assert added.status_code == 303
    page = (await admin.get(ONE)).text
    assert "db.internal" in page
    assert "cache.internal" in page
    assert "Security policies do not apply to services" in page
    assert "Any valid key of this service opens every resource" in page
    assert (await admin.get(ONE + "/resources/new")).text.count("Added already") == 2


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "choose 1 to 100"),
        ({"resource": "9"}, "does not exist"),
        ({"resource": "x"}, "whole numbers"),
        ({"resource": "1", "ends": "other", "expiresAt": "soon"}, "not a date and time"),
        ({"resource": "1", "ends": "other", "expiresAt": "2001-01-01T00:00"}, "1 hour to 1 year ahead"),
        ({"resource": "1", "ends": "5"}, "choose until when"),
    ],
)
async def test_access_that_makes_no_sense_is_refused(
    controller: Running, world: World, admin: Browser, fields: dict[str, str], error: str
) -> None:
    answer = await admin.post(ONE + "/resources/new", fields)
    assert answer.status_code in (400, 404)
    assert error in answer.text
    assert await controller.read(lambda tx: tx.access.count()) == 0


async def test_connectors_that_are_too_old_are_named_with_what_to_do(controller: Running, world: World, admin: Browser) -> None:
    await controller.write(lambda tx: tx.connectors.change(1, version="1.0.29"))
    form = (await admin.get(ONE + "/resources/new")).text
    assert "Connector too old" in form
    assert "office-1 (1.0.29)" in form
    answer = await admin.post(ONE + "/resources/new", {"resource": "1"})
    assert answer.status_code == 409
    assert "1.0.30 or later; too old: office-1 (1.0.29)" in answer.text
    assert "upgrade these connectors" in answer.text.lower()


async def test_the_end_of_access_is_set_and_changed_by_who_has_seen_it(controller: Running, world: World, admin: Browser) -> None:
    await admin.post(ONE + "/resources/new", {"resource": "1", "ends": "24"})
    (row,) = await controller.read(lambda tx: tx.access.find())
    assert row.expires_at_ms is not None
    assert row.expires_at_ms - row.created_at_ms == 24 * 3_600_000
    seen = {"seen": str(row.updated_at_ms)}
    controller.offset = 1
    assert (await admin.post(ONE + "/resources/1/end", {"ends": "168", **seen})).status_code == 303
    assert (await admin.post(ONE + "/resources/1/end", {"ends": "", **seen})).status_code == 409
    assert (await admin.post(ONE + "/resources/2/end", {"ends": "", **seen})).status_code == 409
    (changed,) = await controller.read(lambda tx: tx.access.find())
    assert changed.expires_at_ms is not None
    assert changed.expires_at_ms > row.expires_at_ms


@pytest.mark.parametrize("ends", ["", "24"])
async def test_access_that_was_removed_is_given_back_as_it_was(
    controller: Running, world: World, admin: Browser, ends: str
) -> None:
    await admin.post(ONE + "/resources/new", {"resource": "1", "ends": ends})
    (before,) = await controller.read(lambda tx: tx.access.find())
    removed = await admin.post(ONE + "/resources/1/remove")
    assert "?cut=" in removed.headers["location"]
    assert await controller.read(lambda tx: tx.access.count()) == 0
    page = (await admin.get(removed.headers["location"])).text
    undo = re.search(r'<form method="post" action="/console(/[^"]+)">(.{0,700}?)Undo', page, re.S)
    assert undo is not None
    fields = dict(re.findall(r'name="(resource|ends|expiresAt)" value="([^"]*)"', undo.group(2)))
    assert (await admin.post(undo.group(1), fields)).status_code == 303
    (after,) = await controller.read(lambda tx: tx.access.find())
    assert after.expires_at_ms == before.expires_at_ms


async def test_more_resources_than_fit_have_a_page_of_their_own(controller: Running, world: World, admin: Browser) -> None:
    for number in range(30):
        await controller.add_resource("UmVtb3RlTmV0d29yazox", f"web {number}", f"web{number}.internal")
    await controller.write(lambda tx: allow(tx, *range(1, 33)))
    page = (await admin.get(ONE)).text
    assert "All 32 resources" in page
    assert len(re.findall(r"/resources/\d+/remove", page)) == 10
    assert len(re.findall(r"/resources/\d+/remove", (await admin.get(ONE + "/resources?page=2")).text)) == 7
    assert "1–25 of 32" in (await admin.get(ONE + "/resources/new")).text


# ---- sessions and flows


async def test_a_session_shows_who_it_is_and_is_ended(controller: Running, world: World, admin: Browser) -> None:
    _, key = await controller.add_key(world.account, name="runner")
    session = await controller.log_in(key)
    page = (await admin.get(ONE)).text
    for word in ("runner-1", "192.0.2.7", "0.1.0", "1 of 1,000"):
        assert word in page
    ended = await admin.post(f"{ONE}/sessions/{session.id}/end")
    assert ended.status_code == 303
    (row,) = await controller.read(lambda tx: tx.sessions.find())
    assert row.end_reason == "ended by an admin"
    assert "Nobody is logged in with a key of this service" in (await admin.get(ONE)).text
    assert (await admin.get(ONE + "/sessions")).status_code == 200


async def test_a_session_of_another_service_is_not_there(controller: Running, world: World, admin: Browser) -> None:
    await controller.add_account("other")
    session = await controller.log_in((await controller.add_key(world.account))[1])
    assert (await admin.post(f"{LIST}/2/sessions/{session.id}/end")).status_code == 404
    assert (await admin.post(f"{ONE}/sessions/nobody/end")).status_code == 404
    (row,) = await controller.read(lambda tx: tx.sessions.find())
    assert row.ended_at_ms is None


async def test_live_flows_are_shown_with_where_they_go(controller: Running, world: World, admin: Browser) -> None:
    await world.flows(12, await world.key())
    await world.flows(2, kind="denied", failure="throttled")
    page = (await admin.get(ONE)).text
    assert page.count("db.internal:5432") == 10
    assert "All 12 live flows" in page
    assert "office-1" in page
    assert "2 denied" in page
    assert "2 flows refused because a limit was used up" in page


async def test_deleting_an_account_says_all_that_goes_with_it(controller: Running, world: World, admin: Browser) -> None:
    _, key = await controller.add_key(world.account)
    await controller.log_in(key)
    await controller.write(lambda tx: allow(tx, 1))
    await world.flows(3)
    page = (await admin.get(ONE)).text
    for words in ("3 live flows", "1 live session", "1 key", "1 resource"):
        assert f"<strong>{words}</strong>" in page
    await admin.post(ONE + "/delete")
    assert "See the receipt" in (await admin.get(LIST)).text
    tables: list[Callable[[Transaction], int]] = [
        lambda tx: tx.service_accounts.count(), lambda tx: tx.service_keys.count(), lambda tx: tx.access.count(),
        lambda tx: tx.sessions.count(ended_at_ms=None),
    ]  # fmt: skip
    assert [await controller.read(table) for table in tables] == [0, 0, 0, 0]


async def test_many_keys_do_not_make_a_page_that_is_too_large(controller: Running, world: World, admin: Browser) -> None:
    def add(tx: Transaction) -> None:
        account = tx.service_accounts.get(1)
        assert account is not None
        for number in range(120):
            service_keys.create(
                tx, SYSTEM, account, days=30, name=f"key {number} " + "x" * 200, kid=Kid(f"kid-{number}"), public_key="PEM"
            )

    await controller.write(add)
    for path in (ONE, LIST + "/keys", KEYS + "/new"):
        page = await admin.get(path)
        assert page.status_code == 200
        assert len(page.content) < 100_000, path
    assert "All 120 keys" in (await admin.get(ONE)).text


async def test_no_page_holds_anything_inline(controller: Running, world: World, admin: Browser) -> None:
    _, key = await controller.add_key(world.account)
    await controller.log_in(key)
    await controller.write(lambda tx: allow(tx, 1))
    await world.flows(1)
    pages = [await admin.get(path) for path in (LIST, ONE, ONE + "/sessions", ONE + "/resources", LIST + "/keys")]
    pages += [await generate(admin), await admin.get((await admin.post(KEYS + "/1/revoke")).headers["location"])]
    for page in pages:
        assert page.status_code == 200
        assert not re.search(r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=|javascript:", page.text), page.url


# ---- limits, seats, canary keys


async def test_limits_are_set_on_the_page_and_shown_there(world: World, admin: Browser) -> None:
    page = await admin.get(ONE)
    seen = re.search(r'name="limits_seen" value="(\d+)"', page.text)
    assert seen is not None
    sent = {"limits_seen": seen.group(1), "max_flows": "7", "logins_per_second": "0.5", "bytes_per_second": "12345678"}
    assert (await admin.post(ONE + "/limits", sent)).status_code == 303
    text = (await admin.get(ONE)).text
    assert "then 0.5 a second" in text
    assert "7 at a time" in text
    assert "12,345,678 bytes a second in each direction" in text
    assert re.search(r'name="bytes_per_second" value="12345678"', text)
    assert "3 set for this service" in text
    assert (await admin.post(ONE + "/limits", sent)).status_code == 409
    event = await world.running.last_event()
    assert event.detail["limits"] == {"max_flows": 7, "logins_per_second": 0.5, "bytes_per_second": 12_345_678}


@pytest.mark.parametrize(("field", "value"), [("max_flows", "0"), ("login_burst", "many"), ("max_sessions", "nan")])
async def test_a_limit_that_cannot_be_is_refused_at_its_field(world: World, admin: Browser, field: str, value: str) -> None:
    answer = await admin.post(ONE + "/limits", {"limits_seen": "0", field: value})
    assert answer.status_code == 400
    assert re.search(rf'name="{field}" value="{value}" aria-invalid="true"', answer.text)
    assert await world.running.read(lambda tx: tx.account_limits.count()) == 0


async def test_logins_that_a_limit_refused_are_shown_with_the_limits(world: World, admin: Browser) -> None:
    assert "No login was refused because of a limit since the controller began" in (await admin.get(ONE)).text
    _, key = await world.running.add_key(to_global_id("ServiceAccount", 1))
    sent = {"limits_seen": "0", "login_burst": "1", "logins_per_second": "0.01"}
    assert (await admin.post(ONE + "/limits", sent)).status_code == 303
    assert [(await attempt(world.running, key)).status_code for _ in range(3)] == [200, 429, 429]
    assert "2 (logins 2) because of a limit since the controller began" in (await admin.get(ONE)).text


async def test_who_may_not_change_services_sees_limits_and_no_form(world: World, support: Browser) -> None:
    text = (await support.get(ONE)).text
    assert "60 at once" in text
    assert ONE + "/limits" not in text
    assert (await support.post(ONE + "/limits", {"limits_seen": "0"})).status_code == 403


async def test_a_key_is_generated_with_seats_or_as_a_canary(world: World, admin: Browser) -> None:
    await generate(admin, name="seated", kind="seats", seats="2", seatsExceeded="refuse")
    await generate(admin, name="bait", kind="canary")
    rows = await world.running.read(lambda tx: tx.service_keys.find())
    told = [(row.name, row.seats, row.seats_exceeded, row.is_canary) for row in rows]
    assert told == [("seated", 2, "refuse", False), ("bait", None, "alert", True)]
    text = (await admin.get(ONE)).text
    for page in (text, (await admin.get("/team/services/keys")).text):
        assert "Seats, canary</th>" in page
        found = re.findall('data-label="Seats, canary">(.*?)</td>', page, re.DOTALL)
        cells = [" ".join(re.sub("<[^>]+>", " ", cell).split()) for cell in found]
        assert sorted(cells) == ["0 of 2 beyond: refused", "Canary opens nothing, raises an alarm"]


@pytest.mark.parametrize(
    "fields",
    [{"kind": "seats", "seats": "0"}, {"kind": "seats", "seatsExceeded": "x", "seats": "1"}, {"kind": "canary", "replaces": "1"}],
)
async def test_seats_that_cannot_be_make_no_key(world: World, admin: Browser, fields: dict[str, str]) -> None:
    assert (await generate(admin, name="wrong", **fields)).status_code == 400
    assert await world.running.read(lambda tx: tx.service_keys.count()) == 0
