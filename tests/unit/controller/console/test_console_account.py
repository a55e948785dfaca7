"""The own account and the pages of who may sign in: what they change, who may use them, and that others cannot."""

from __future__ import annotations

import re

import pytest
from starlette.routing import Route

from klinket.controller.app import oidc_identities, passkeys
from klinket.controller.app.console_sessions import PROOF_MS
from klinket.controller.console.sign_in import totp
from klinket.domain.audit import SYSTEM
from tests.unit.controller.console.visitor import (
    PASSWORD,
    Visitor,
    add_person,
    codes_of,
    link_of,
    shown_secret,
    whole_session,
)
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only

NEW_PASSWORD = "another giraffe under seven moons"
ADMINS_ONLY = "/settings/console-access"


@pytest.fixture
async def ada(controller: Running) -> Visitor:
    return await as_user(controller, "ada@example.com", "ADMIN")


async def as_user(controller: Running, email: str, role: str) -> Visitor:
    """Return the browser of somebody who has just signed in."""
    user = await add_person(controller, email, role)
    visitor = Visitor(controller)
    visitor.client.cookies.set("__Host-sid", await whole_session(controller, user), domain="127.0.0.1")
    await visitor.get("/account")
    assert visitor.at == "/account"
    return visitor


def own_routes(controller: Running) -> list[tuple[str, str]]:
    """Return method and path of every page of the account and of console access, with ids filled in."""
    found = []
    for route in controller.app.routes:
        if isinstance(route, Route) and route.path.startswith(("/console/account", "/console" + ADMINS_ONLY)):
            path = re.sub(r"\{\w+(:\w+)?\}", "1", route.path).removeprefix("/console")
            found.append(("POST" if "POST" in (route.methods or ()) else "GET", path))
    assert len(found) > 15
    return found


# ---- who may


async def test_nothing_of_it_is_open_to_who_is_not_signed_in(controller: Running) -> None:
    await add_person(controller)
    before = len(await controller.audit())
    for method, path in own_routes(controller):
        visitor = Visitor(controller)
        answer = await (visitor.get(path, follow=False) if method == "GET" else visitor.post(path, follow=False))
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/console/sign-in"), path
    assert len(await controller.audit()) == before


@pytest.mark.parametrize("role", ["DEVOPS", "SUPPORT"])
async def test_who_may_sign_in_is_the_admins_affair(controller: Running, role: str) -> None:
    visitor = await as_user(controller, "bob@example.com", role)
    hidden = visitor.hidden()
    for method, path in own_routes(controller):
        if path.startswith(ADMINS_ONLY):
            send = visitor.get(path) if method == "GET" else visitor.post(path, hidden=False, **hidden)
            assert (await send).status_code == 403, path
    assert await controller.read(lambda tx: tx.sign_in_links.count()) == 0
    assert (await visitor.get("/account")).status_code == 200


async def test_no_other_site_uses_it(ada: Visitor, controller: Running) -> None:
    hidden = ada.hidden()
    before = await controller.audit()
    for method, path in own_routes(controller):
        if method == "POST":
            headers = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
            answer = await ada.client.post("/console" + path, data=hidden, headers=headers)
            assert answer.status_code == 403, path
            answer = await ada.post(path, hidden=False, form_token="0" * 48, follow=False)
            assert answer.status_code == 403, path
    assert await controller.audit() == before


async def test_what_makes_or_changes_credentials_needs_a_fresh_proof(ada: Visitor, controller: Running) -> None:
    controller.offset += PROOF_MS / 1000
    await ada.get("/account")
    hidden = ada.hidden()
    secret = {
        "/account/app", "/account/app/remove", "/account/passkeys/new", "/account/passkeys/1/remove", "/account/recovery-codes",
        "/account/identities/1/unlink", ADMINS_ONLY + "/invite", ADMINS_ONLY + "/1/link",
    }  # fmt: skip
    seen = set()
    for method, path in own_routes(controller):
        send = ada.get(path, follow=False) if method == "GET" else ada.post(path, follow=False, hidden=False, **hidden)
        if (await send).headers.get("location", "").startswith("/console/prove"):
            seen.add(path)
    assert seen == secret


# ---- the own account


async def test_changing_the_password_needs_the_present_one_and_ends_the_other_sessions(ada: Visitor, controller: Running) -> None:
    (user,) = await controller.read(lambda tx: tx.users.find())
    other = Visitor(controller)
    other.client.cookies.set("__Host-sid", await whole_session(controller, user), domain="127.0.0.1")
    for fields, told in (
        ({"current": "wrong", "password": NEW_PASSWORD, "again": NEW_PASSWORD}, "not your password"),
        ({"current": PASSWORD, "password": NEW_PASSWORD, "again": "other"}, "are not the same"),
        ({"current": PASSWORD, "password": "short", "again": "short"}, "12 are needed"),
    ):
        await ada.post("/account/password", **fields)
        assert told in ada.text
        await ada.get("/account")
    await other.get("/")
    assert other.at == "/"
    await ada.post("/account/password", current=PASSWORD, password=NEW_PASSWORD, again=NEW_PASSWORD)
    assert "Password changed" in ada.text
    await other.get("/")
    assert other.at == "/sign-in"
    fresh = Visitor(controller)
    await fresh.sign_in(password=PASSWORD)
    assert fresh.page.status_code == 401
    await fresh.sign_in(password=NEW_PASSWORD)
    assert fresh.at == "/sign-in/factor"
    assert NEW_PASSWORD.encode() not in controller.everything_stored()


async def test_sessions_are_listed_and_ended(ada: Visitor, controller: Running) -> None:
    (user,) = await controller.read(lambda tx: tx.users.find())
    others = [Visitor(controller) for _ in range(3)]
    for other in others:
        other.client.cookies.set("__Host-sid", await whole_session(controller, user), domain="127.0.0.1")
    await ada.get("/account")
    ids = re.findall(r"/console/account/sessions/(\d+)/end", ada.page.text)
    assert (len(ids), ada.page.text.count("this one")) == (3, 1)
    await ada.post(f"/account/sessions/{ids[0]}/end")
    assert "Session ended" in ada.text
    await ada.post("/account/sessions/end-others")
    assert "2 other sessions ended" in ada.text
    for other in others:
        await other.get("/")
        assert other.at == "/sign-in"


async def test_nobody_ends_a_session_of_another_by_its_number(ada: Visitor, controller: Running) -> None:
    bob = await as_user(controller, "bob@example.com", "SUPPORT")
    rows = await controller.read(lambda tx: tx.console_sessions.find())
    mine = next(row.id for row in rows if row.user_id == 1)
    await bob.post(f"/account/sessions/{mine}/end")
    await ada.get("/account")
    assert ada.at == "/account"


async def test_a_new_authenticator_app_counts_from_its_first_code_on(ada: Visitor, controller: Running) -> None:
    before = await controller.read(lambda tx: tx.totp_secrets.find(is_confirmed=True))
    await ada.get("/account/app")
    secret = shown_secret(ada.page.text)
    await ada.post("/account/app", code="123")
    assert ada.page.status_code == 401
    assert await controller.read(lambda tx: tx.totp_secrets.find(is_confirmed=True)) == before
    await ada.post("/account/app", code=totp.code_at(secret, controller.clock()))
    assert "set up" in ada.text
    assert await controller.read(lambda tx: tx.totp_secrets.find(is_confirmed=True)) != before
    await ada.get("/account/app")
    assert shown_secret(ada.page.text) != secret
    await ada.get("/account")
    await ada.post("/account/app/remove")
    assert "last second factor" in ada.text


async def test_new_recovery_codes_are_shown_once(ada: Visitor, controller: Running) -> None:
    (user,) = await controller.read(lambda tx: tx.users.find())
    old = await codes_of(controller, user)
    await ada.post("/account/recovery-codes")
    codes = re.findall(r"<li><code>([\w-]+)</code>", ada.page.text)
    assert len(codes) == 10
    assert not set(codes) & set(old)
    assert ada.page.headers["cache-control"] == "no-store"
    await ada.get("/account")
    assert not any(code in ada.page.text for code in codes)


async def test_passkeys_and_linked_accounts_of_others_cannot_be_touched(ada: Visitor, controller: Running) -> None:
    bob = await add_person(controller, "bob@example.com", "SUPPORT")

    def add(tx):  # type: ignore[no-untyped-def]
        values = {"credential_id": "AAAA", "public_key": b"k", "sign_count": 0, "transports": []}
        passkeys.add(tx, SYSTEM, bob, name="bob's", **values)
        tx.oidc_identities.add(user_id=bob.id, issuer="https://id.example", subject="bob", last_used_ms=None)

    await controller.write(add)
    assert (await ada.post("/account/passkeys/1/rename", name="mine")).status_code == 404
    await ada.get("/account")
    assert (await ada.post("/account/passkeys/1/remove")).status_code == 404
    await ada.get("/account")
    assert (await ada.post("/account/identities/1/unlink")).status_code == 404
    assert len(await controller.read(lambda tx: oidc_identities.of_user(tx, bob.id))) == 1
    assert await controller.read(lambda tx: tx.passkeys.find()) != []


async def test_there_are_no_passkeys_for_an_ip_address_and_the_page_says_so(ada: Visitor) -> None:
    await ada.get("/account/passkeys/new")
    assert "Passkeys need a host name" in ada.text


# ---- role changes


async def test_a_role_counts_from_the_next_request_on(controller: Running) -> None:
    bob = await as_user(controller, "bob@example.com", "ADMIN")
    assert (await bob.get(ADMINS_ONLY)).status_code == 200
    await controller.write(lambda tx: tx.users.change(1, role="SUPPORT"))
    assert (await bob.get(ADMINS_ONLY)).status_code == 403
    await controller.write(lambda tx: tx.users.change(1, role="MEMBER"))
    await bob.get("/account")
    assert bob.at == "/sign-in"


# ---- who may sign in


async def test_an_invitation_is_a_link_that_is_shown_once(ada: Visitor, controller: Running) -> None:
    await ada.get(ADMINS_ONLY + "/invite")
    await ada.post(ADMINS_ONLY + "/invite", email="Grace@example.com", role="DEVOPS", firstName="Grace")
    found = re.search(r"https://[^<]+#(kl_link_\w+)", ada.page.text)
    assert found is not None
    assert ada.page.headers["cache-control"] == "no-store"
    await ada.get(ADMINS_ONLY)
    assert "invited" in ada.text
    assert found[1] not in ada.page.text
    grace = Visitor(controller)
    await grace.get("/sign-in/link")
    await grace.post("/sign-in/link", link=found[1])
    assert "grace@example.com" in grace.text
    await grace.post("/sign-in/link/account", password=PASSWORD, again=PASSWORD)
    assert grace.at == "/sign-in/set-up"
    made = [row for row in await controller.audit() if "signInLink" in row.detail]
    assert [(row.actor["info"], row.detail["signInLink"]) for row in made] == [
        ({"name": "ada@example.com"}, "made"), ({"name": "grace@example.com"}, "used"),
    ]  # fmt: skip
    assert found[1] not in str(made)


@pytest.mark.parametrize(
    ("fields", "told"), [({"role": "MEMBER"}, "has a console"), ({"email": "ada@example.com"}, "exists already")]
)
async def test_an_invitation_that_cannot_be_is_told(ada: Visitor, fields: dict[str, str], told: str) -> None:
    await ada.get(ADMINS_ONLY + "/invite")
    await ada.post(ADMINS_ONLY + "/invite", **{"email": "grace@example.com", "role": "SUPPORT", **fields})
    assert told in ada.text
    assert ada.page.status_code in (400, 409)


async def test_an_admin_ends_sessions_of_others_and_makes_them_a_link(ada: Visitor, controller: Running) -> None:
    bob = await as_user(controller, "bob@example.com", "SUPPORT")
    await ada.get(ADMINS_ONLY + "/2")
    (id,) = re.findall(r"/console/settings/console-access/2/sessions/(\d+)/end", ada.page.text)
    await ada.post(ADMINS_ONLY + f"/2/sessions/{id}/end")
    await bob.get("/")
    assert bob.at == "/sign-in"
    (user,) = await controller.read(lambda tx: tx.users.find(id=2))
    bob.client.cookies.set("__Host-sid", await whole_session(controller, user), domain="127.0.0.1")
    await ada.post(ADMINS_ONLY + "/2/end-sessions")
    await bob.get("/")
    assert bob.at == "/sign-in"
    await ada.get(ADMINS_ONLY + "/2")
    await ada.post(ADMINS_ONLY + "/2/link")
    assert re.search(r"#kl_link_\w+", ada.page.text)
    await controller.write(lambda tx: tx.users.change(2, state="DISABLED"))
    await ada.get(ADMINS_ONLY + "/2")
    await ada.post(ADMINS_ONLY + "/2/link")
    assert (ada.page.status_code, "disabled" in ada.text) == (409, True)


async def test_a_link_of_the_first_admin_does_not_outlive_the_first_admin(ada: Visitor, controller: Running) -> None:
    text = await link_of(controller, None)
    eve = Visitor(controller)
    await eve.get("/sign-in/link")
    await eve.post("/sign-in/link", link=text)
    assert eve.page.status_code == 401
