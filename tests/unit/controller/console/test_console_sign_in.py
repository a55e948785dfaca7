"""Every step of signing in over HTTP, without scripts: as it should go, anonymously, half signed in, from other sites."""

from __future__ import annotations

import re

import pytest

from klinket.controller.app import users
from klinket.controller.app.console_sessions import MAX_UNFINISHED_MS, PROOF_MS
from klinket.controller.console.sign_in import password_hash, totp
from klinket.controller.console.sign_in.visit import VISIT_BURST
from klinket.domain.audit import SYSTEM
from klinket.domain.lock_out import ACCOUNT, ADDRESS
from tests.unit.controller.console.visitor import (
    PASSWORD,
    Visitor,
    add_person,
    code_of,
    codes_of,
    link_of,
    secret_of,
    shown_secret,
)
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only

WRONG = "E-mail address and password do not belong together".lower()
OPEN_PAGES = ["/sign-in", "/sign-in/link"]
HALF_PAGES = {
    "second-factor": [("GET", "/sign-in/factor"), ("POST", "/sign-in/factor"), ("POST", "/sign-in/factor/passkey"),
                      ("GET", "/sign-in/recovery"), ("POST", "/sign-in/recovery")],
    "set-up": [("GET", "/sign-in/set-up"), ("GET", "/sign-in/set-up/app"), ("POST", "/sign-in/set-up/app"),
               ("POST", "/sign-in/set-up/passkey"), ("GET", "/sign-in/app.svg")],
    "full": [("GET", "/prove"), ("POST", "/prove/password"), ("POST", "/prove/code"), ("POST", "/prove/passkey")],
}  # fmt: skip


@pytest.fixture
async def ada(controller: Running) -> Visitor:
    await add_person(controller)
    return Visitor(controller)


# ---- as it should go


async def test_a_password_and_a_code_sign_in(ada: Visitor, controller: Running) -> None:
    await ada.sign_in()
    assert ada.at == "/sign-in/factor"
    half = ada.cookie()
    await ada.post("/sign-in/factor", code=await code_of(controller))
    assert (ada.page.status_code, ada.at) == (200, "/")
    assert ada.cookie() != half
    event = await controller.last_event()
    assert (event.action, event.detail, event.actor["info"]) == (
        "login", {"method": "password+totp"}, {"name": "ada@example.com"},
    )  # fmt: skip


async def test_the_way_leads_back_to_what_was_asked_for_and_nowhere_else(ada: Visitor, controller: Running) -> None:
    await ada.get("/network/remote-networks?page=2")
    assert ada.at == "/sign-in"
    await ada.post("/sign-in", email="ada@example.com", password=PASSWORD)
    await ada.post("/sign-in/factor", code=await code_of(controller))
    assert (ada.at, ada.page.url.query) == ("/network/remote-networks", b"page=2")
    for elsewhere in ("https://evil.example/", "//evil.example/console/", "/console/\\evil", "/graphql/", "javascript:alert(1)"):
        await ada.post("/sign-out")
        await ada.get("/sign-in")
        await ada.post("/sign-in", email="ada@example.com", password=PASSWORD, next=elsewhere)
        await ada.post("/sign-in/factor", code=await code_of(controller), next=elsewhere)
        assert (ada.page.url.host, ada.page.url.path) == ("127.0.0.1", "/console/")


async def test_a_recovery_code_stands_in_for_the_app_once(ada: Visitor, controller: Running) -> None:
    user = (await controller.read(lambda tx: tx.users.find()))[0]
    codes = await codes_of(controller, user)
    await ada.sign_in()
    await ada.get("/sign-in/recovery")
    await ada.post("/sign-in/recovery", code=codes[4])
    assert ada.at == "/account"
    assert "9 of 10 left" in ada.text
    await ada.post("/sign-out")
    await ada.sign_in()
    await ada.get("/sign-in/recovery")
    await ada.post("/sign-in/recovery", code=codes[4])
    assert (ada.page.status_code, "used already" in ada.text) == (401, True)


async def test_signing_out_ends_the_session_at_the_controller(ada: Visitor, controller: Running) -> None:
    await ada.sign_in_whole()
    cookie = ada.cookie()
    await ada.post("/sign-out")
    assert ada.at == "/sign-in"
    assert ada.cookie() is None
    stale = await Visitor(controller).get("/", follow=False, cookie=f"__Host-sid={cookie}")
    assert stale.status_code == 303
    assert (await controller.last_event()).action == "logout"


async def test_who_is_signed_in_is_led_on_from_the_sign_in(ada: Visitor) -> None:
    await ada.sign_in_whole()
    await ada.get("/sign-in?next=/console/network/remote-networks")
    assert ada.at == "/network/remote-networks"


# ---- what guessers learn


async def test_unknown_wrong_disabled_and_roleless_are_told_the_same(controller: Running) -> None:
    await add_person(controller)
    disabled = await add_person(controller, "off@example.com")
    await controller.write(lambda tx: users.update(tx, SYSTEM, disabled, first_name=None, last_name=None, state="DISABLED"))
    await add_person(controller, "member@example.com", "MEMBER")
    await add_person(controller, "passkeys@example.com", password=False)
    answers = []
    tries = (
        ("ada@example.com", "wrong"), ("nobody@example.com", PASSWORD), ("off@example.com", PASSWORD),
        ("member@example.com", PASSWORD), ("passkeys@example.com", PASSWORD), ("not an address", PASSWORD),
    )  # fmt: skip
    for email, password in tries:
        visitor = Visitor(controller)
        await visitor.sign_in(email, password)
        assert visitor.cookie() is None
        shown = re.sub(r'(value|data-options)="[^"]*"', "", visitor.page.text)
        answers.append((visitor.page.status_code, shown))
    assert len(set(answers)) == 1
    assert WRONG in answers[0][1].lower()
    assert answers[0][0] == 401


async def test_too_many_failures_lock_an_address_and_the_answer_says_for_how_long(ada: Visitor) -> None:
    for _ in range(ADDRESS.free + 1):
        await ada.sign_in(password="wrong")
        assert ada.page.status_code == 401
    await ada.sign_in()
    assert (ada.page.status_code, ada.page.headers["retry-after"]) == (429, "2")
    assert "too many failed sign-ins" in ada.text.lower()
    assert PASSWORD not in ada.page.text


async def test_a_browser_that_has_signed_in_gets_in_while_others_guess(ada: Visitor, controller: Running) -> None:
    await ada.sign_in_whole()
    await ada.post("/sign-out")
    guesser = Visitor(controller)
    for _ in range(ADDRESS.free + 3):
        await guesser.sign_in(password="wrong")
        controller.offset += 2.5 if guesser.page.status_code == 429 else 0
    await guesser.sign_in()
    assert guesser.page.status_code == 429
    await ada.sign_in()  # from the same address, in a browser that is known
    assert ada.at == "/sign-in/factor"
    await guesser.sign_in()
    assert guesser.page.status_code == 429


async def test_second_factors_cannot_be_guessed_either(ada: Visitor, controller: Running) -> None:
    await ada.sign_in()
    for _ in range(6):
        await ada.post("/sign-in/factor", code="000000")
        assert ada.page.status_code == 401
    await ada.post("/sign-in/factor", code=await code_of(controller))
    assert ada.page.status_code == 429
    controller.offset += 11
    await ada.post("/sign-in/factor", code=await code_of(controller))
    assert ada.at == "/"
    refused = [row for row in await controller.audit() if row.action == "refuse"]
    assert {(row.targets[0]["type"], row.detail["method"]) for row in refused} == {("user", "totp")}


async def test_a_code_works_once(ada: Visitor, controller: Running) -> None:
    code = await code_of(controller)
    await ada.sign_in()
    await ada.post("/sign-in/factor", code=code)
    assert ada.at == "/"
    await ada.post("/sign-out")
    await ada.sign_in()
    await ada.post("/sign-in/factor", code=code)
    assert ada.page.status_code == 401


@pytest.mark.parametrize(("steps", "right"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
async def test_a_clock_may_be_off_by_one_step(ada: Visitor, controller: Running, steps: int, right: bool) -> None:
    controller.offset -= controller.clock() % totp.STEP_SECONDS  # at the beginning of a step
    await ada.sign_in()
    code = totp.code_at(await secret_of(controller), controller.clock() + steps * totp.STEP_SECONDS)
    await ada.post("/sign-in/factor", code=f" {code[:3]} {code[3:]} ")
    assert (ada.at == "/") == right


# ---- who is half signed in


@pytest.mark.parametrize("stage", ["second-factor", "set-up"])
async def test_a_half_signed_in_session_reaches_nothing_but_its_step(controller: Running, stage: str) -> None:
    await add_person(controller, app=stage == "second-factor")
    visitor = Visitor(controller)
    await visitor.sign_in()
    hidden = visitor.hidden()
    step = "/sign-in/factor" if stage == "second-factor" else "/sign-in/set-up"
    for other, pages in HALF_PAGES.items():
        for method, path in pages:
            if other == stage:
                continue
            send = (
                visitor.get(path, follow=False) if method == "GET" else visitor.post(path, follow=False, hidden=False, **hidden)
            )
            answer = await send
            assert (answer.status_code, answer.headers.get("location")) == (303, "/console/sign-in"), path
    for path in ("/", "/account", "/network/remote-networks", "/settings/console-access", "/events", "/account/app"):
        await visitor.get(path)
        assert visitor.at == step, path
    for path in ("/account/recovery-codes", "/network/remote-networks/new", "/account/sessions/end-others"):
        answer = await visitor.post(path, follow=False, hidden=False, **hidden)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/console/sign-in")
    assert await controller.read(lambda tx: tx.recovery_codes.count()) == 0


async def test_a_half_signed_in_session_ends_after_a_quarter_of_an_hour(ada: Visitor, controller: Running) -> None:
    await ada.sign_in()
    controller.offset += MAX_UNFINISHED_MS / 1000
    await ada.post("/sign-in/factor", code=await code_of(controller))
    assert ada.at == "/sign-in"


async def test_a_session_that_somebody_planted_is_not_taken_over(ada: Visitor, controller: Running) -> None:
    """Fixation: the attacker's own half session is in the browser of the one who signs in."""
    attacker = Visitor(controller)
    await attacker.sign_in()
    planted = attacker.cookie()
    assert planted is not None
    ada.client.cookies.set("__Host-sid", planted, domain="127.0.0.1")
    await ada.get("/sign-in/factor")
    await ada.post("/sign-in/factor", code=await code_of(controller))
    assert ada.at == "/"
    await attacker.get("/")
    assert attacker.at == "/sign-in"


# ---- anonymous, from other sites, too often


@pytest.mark.parametrize(("method", "path"), [page for pages in HALF_PAGES.values() for page in pages])
async def test_no_step_is_open_to_who_has_not_begun(controller: Running, method: str, path: str) -> None:
    visitor = Visitor(controller)
    answer = await (visitor.get(path, follow=False) if method == "GET" else visitor.post(path, follow=False, code="000000"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")


@pytest.mark.parametrize(
    "path",
    ["/sign-in", "/sign-in/passkey", "/sign-in/link", "/sign-in/link/account", "/sign-in/factor", "/sign-out", "/prove/code"],
)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "same-site"},
        {"origin": "null"},
        {},
    ],
)
async def test_no_other_site_signs_anybody_in_or_out(ada: Visitor, path: str, headers: dict[str, str]) -> None:
    await ada.sign_in()
    before = ada.cookie()
    form = {**ada.hidden(), "email": "ada@example.com", "password": PASSWORD, "code": "000000"}
    answer = await ada.client.post("/console" + path, data=form, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert ada.cookie() == before


async def test_a_form_of_another_session_is_refused(ada: Visitor, controller: Running) -> None:
    other = Visitor(controller)
    await other.sign_in()
    await ada.sign_in()
    answer = await ada.post("/sign-in/factor", form_token=other.hidden()["form_token"], code=await code_of(controller))
    assert answer.status_code == 403


async def test_one_address_asks_only_so_often(controller: Running) -> None:
    visitor = Visitor(controller, "203.0.113.1")
    answers = [(await visitor.get("/sign-in/link")).status_code for _ in range(VISIT_BURST + 10)]
    assert answers[:VISIT_BURST] == [200] * VISIT_BURST
    assert 429 in answers[VISIT_BURST:]
    assert (await Visitor(controller, "203.0.113.2").get("/sign-in/link")).status_code == 200


@pytest.mark.parametrize("path", OPEN_PAGES)
async def test_pages_of_the_sign_in_are_kept_nowhere_and_hold_nothing_inline(controller: Running, path: str) -> None:
    page = await Visitor(controller).get(path)
    assert page.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page.text)


async def test_cookies_are_this_hosts_and_no_scripts(ada: Visitor, controller: Running) -> None:
    await ada.sign_in()
    answer = await ada.post("/sign-in/factor", follow=False, code=await code_of(controller))
    given = answer.headers.get_list("set-cookie")
    assert len(given) == 2
    for cookie in given:
        assert cookie.startswith("__Host-")
        assert {"Secure", "HttpOnly", "Path=/"} <= set(cookie.split("; "))
        assert "samesite" in cookie.lower()


# ---- links


async def test_the_first_admin_comes_by_a_link_and_ends_with_ten_codes(controller: Running) -> None:
    visitor = Visitor(controller)
    text = await link_of(controller, None)
    await visitor.get("/sign-in/link")
    await visitor.post("/sign-in/link", link=f"https://k.example/console/sign-in/link#{text}")
    assert "Make the first admin" in visitor.text
    await visitor.post("/sign-in/link/account", email="Ada@Example.com", firstName="Ada", password=PASSWORD, again=PASSWORD)
    assert visitor.at == "/sign-in/set-up"
    await visitor.get("/sign-in/set-up/app")
    secret = shown_secret(visitor.page.text)
    picture = await visitor.client.get("/console/sign-in/app.svg")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert picture.headers["cache-control"] == "no-store"
    assert b"style" not in picture.content
    await visitor.post("/sign-in/set-up/app", code="000000")
    assert visitor.page.status_code == 401
    assert shown_secret(visitor.page.text) == secret
    await visitor.post("/sign-in/set-up/app", code=totp.code_at(secret, controller.clock()))
    codes = re.findall(r"<li><code>([\w-]+)</code>", visitor.page.text)
    assert len(codes) == 10
    assert visitor.page.headers["cache-control"] == "no-store"
    await visitor.get("/")
    assert visitor.at == "/"
    stored = controller.everything_stored()
    assert PASSWORD.encode() not in stored
    assert not any(code.encode() in stored for code in codes)
    assert secret not in stored
    assert text.encode() not in stored
    assert visitor.cookie().encode() not in stored  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"email": "no address"}, "must be an address"),
        ({"password": "short"}, "12 are needed"),
        ({"again": "something else entirely"}, "are not the same"),
        ({"password": "ada@example.com2", "again": "ada@example.com2"}, "mostly your address"),
    ],
)
async def test_what_is_wrong_with_an_account_is_told_and_the_link_still_works(
    controller: Running, fields: dict[str, str], told: str
) -> None:
    visitor = Visitor(controller)
    await visitor.get("/sign-in/link")
    await visitor.post("/sign-in/link", link=await link_of(controller, None))
    right = {"email": "ada@example.com", "password": PASSWORD, "again": PASSWORD}
    await visitor.post("/sign-in/link/account", **{**right, **fields})
    assert visitor.page.status_code == 400
    assert told in visitor.text
    assert PASSWORD not in visitor.page.text
    await visitor.post("/sign-in/link/account", **right)
    assert visitor.at == "/sign-in/set-up"


async def test_of_two_who_hold_a_link_one_gets_in(controller: Running) -> None:
    text = await link_of(controller, None)
    both = [Visitor(controller), Visitor(controller)]
    for visitor in both:
        await visitor.get("/sign-in/link")
        await visitor.post("/sign-in/link", link=text)
    fields = {"password": PASSWORD, "again": PASSWORD}
    await both[0].post("/sign-in/link/account", email="ada@example.com", **fields)
    await both[1].post("/sign-in/link/account", email="eve@example.com", **fields)
    assert both[0].at == "/sign-in/set-up"
    assert both[1].page.status_code == 401
    assert "not valid" in both[1].text
    assert [row.email for row in await controller.read(lambda tx: tx.users.find())] == ["ada@example.com"]


async def test_a_link_that_is_none_is_refused_on_both_pages(controller: Running) -> None:
    visitor = Visitor(controller)
    await visitor.get("/sign-in/link")
    await visitor.post("/sign-in/link", link="kl_link_nonsense")
    assert (visitor.page.status_code, "not valid" in visitor.text) == (401, True)
    await visitor.post("/sign-in/link/account", link="kl_link_nonsense", email="a@b.c", password=PASSWORD, again=PASSWORD)
    assert visitor.page.status_code == 401


async def test_an_invited_user_sees_the_own_address_and_cannot_choose_another(controller: Running) -> None:
    user = await controller.write(
        lambda tx: users.create(tx, SYSTEM, email="grace@example.com", first_name=None, last_name=None, role="SUPPORT")
    )
    visitor = Visitor(controller)
    await visitor.get("/sign-in/link")
    await visitor.post("/sign-in/link", link=await link_of(controller, user))
    assert "grace@example.com" in visitor.text
    await visitor.post("/sign-in/link/account", email="eve@example.com", password=PASSWORD, again=PASSWORD)
    (row,) = await controller.read(lambda tx: tx.users.find())
    assert (row.email, row.role, row.state) == ("grace@example.com", "SUPPORT", "ACTIVE")


# ---- proving again


async def test_what_is_secret_asks_for_a_fresh_proof_which_holds_for_five_minutes(ada: Visitor, controller: Running) -> None:
    await ada.sign_in_whole()
    assert (await ada.get("/account/app")).status_code == 200
    assert ada.at == "/account/app"
    controller.offset += PROOF_MS / 1000
    await ada.get("/account/app")
    assert (ada.at, ada.page.url.params["next"]) == ("/prove", "/console/account/app")
    before = ada.cookie()
    await ada.post("/prove/password", password="wrong", next="/console/account/app")
    assert ada.page.status_code == 401
    await ada.get("/prove?next=/console/account/app")
    await ada.post("/prove/password", password=PASSWORD)
    assert ada.at == "/account/app"
    assert ada.cookie() != before
    controller.offset += PROOF_MS / 1000
    await ada.get("/prove")
    await ada.post("/prove/code", code=await code_of(controller))
    assert ada.at == "/"
    proofs = [row.detail for row in await controller.audit() if row.action == "login"][-2:]
    assert proofs == [{"method": "password", "again": True}, {"method": "totp", "again": True}]


async def test_who_has_taken_a_session_cannot_guess_the_password_on_the_proof_page(ada: Visitor, controller: Running) -> None:
    await ada.sign_in_whole()
    thief = Visitor(controller)
    thief.client.cookies.set("__Host-sid", ada.cookie() or "", domain="127.0.0.1")
    for _ in range(ADDRESS.free + 1):
        await thief.get("/prove")
        await thief.post("/prove/password", password="wrong")
    await thief.get("/prove")
    await thief.post("/prove/password", password=PASSWORD)
    assert thief.page.status_code == 429


async def test_a_try_that_nobody_had_time_for_counts_for_nothing(controller: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_person(controller)
    ada = Visitor(controller)
    with monkeypatch.context() as busy:
        busy.setattr(password_hash, "MAX_WAITING", -password_hash.MAX_HASHES)
        for _ in range(int(ADDRESS.free) + 2):
            await ada.sign_in()
            assert (ada.page.status_code, "too many people sign in" in ada.text) == (429, True)
    assert [row.failures for row in await controller.read(lambda tx: tx.lock_outs.find())] == [0.0, 0.0]
    await ada.sign_in_whole()
    controller.offset += PROOF_MS / 1000
    await ada.get("/prove")
    with monkeypatch.context() as busy:
        busy.setattr(password_hash, "MAX_WAITING", -password_hash.MAX_HASHES)
        for _ in range(int(ACCOUNT.free) + 2):
            await ada.post("/prove/password", password=PASSWORD)
            assert (ada.page.status_code, "too many people sign in" in ada.text) == (429, True)
    await ada.post("/prove/password", password=PASSWORD)
    assert ada.at == "/"
