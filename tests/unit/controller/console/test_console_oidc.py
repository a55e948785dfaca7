"""Signing in with an identity provider: a real one on loopback, as it should be, and one that lies."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from klinket.controller.console.sign_in.oidc import page
from klinket.controller.oidc_settings import OidcSettings, parse_rules
from klinket.domain.errors import InvalidInput
from klinket.domain.lock_out import ADDRESS
from tests.unit.controller.console.identity_provider import IdentityProvider, identity_provider
from tests.unit.controller.console.visitor import Visitor, add_person
from tests.unit.controller.running import Running

CLIENT = "klinket-acme"
LOOPBACK = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128"))


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityProvider]:
    with identity_provider(tmp_path_factory.mktemp("provider")) as running:
        running.add_user("ada", email="ada@example.com", email_verified=True, name="Ada Lovelace", groups=["ops"])
        running.add_user("eve", email="eve@example.com", email_verified=False, name="Eve", groups=["ops"])
        yield running


def settings(provider: IdentityProvider, **changed: Any) -> OidcSettings:
    values = {
        "issuer": provider.issuer,
        "client_id": CLIENT,
        "client_secret": "not checked by this provider",
        "authority": provider.authority,
        "rules": parse_rules(["example.com"], ["ops=DEVOPS"], "SUPPORT"),
        "label": "Example ID",
    }
    return OidcSettings(**{**values, **changed})


async def opened(folder: Path, provider: IdentityProvider, **changed: Any) -> Running:
    outbound = changed.pop("allowed_outbound", LOOPBACK)
    running = Running(folder / "state", oidc=settings(provider, **changed), allowed_outbound=outbound)
    await running.open()
    return running


@pytest.fixture
async def console(tmp_path: Path, provider: IdentityProvider) -> AsyncIterator[Running]:
    provider.faults()
    running = await opened(tmp_path, provider)
    yield running
    running.store.close()
    provider.faults()


async def there_and_back(visitor: Visitor, provider: IdentityProvider, subject: str = "ada", path: str = "/sign-in/oidc") -> None:
    """Leave for the provider, sign in there, come back."""
    leaving = await visitor.get(path, follow=False)
    assert leaving.status_code == 303, visitor.text
    back = provider.sign_in(leaving.headers["location"], subject)
    await visitor.get(back, **{"sec-fetch-site": "cross-site"})


async def refusals(running: Running) -> list[str]:
    return [row.detail.get("why", "") for row in await running.audit() if row.action == "refuse"]


async def test_who_comes_from_the_provider_is_made_and_signed_in(console: Running, provider: IdentityProvider) -> None:
    visitor = Visitor(console)
    await visitor.get("/sign-in?next=/console/network/remote-networks")
    assert "Sign in with Example ID" in visitor.text
    await there_and_back(visitor, provider, path="/sign-in/oidc?next=/console/network/remote-networks")
    assert visitor.at == "/network/remote-networks"
    (user,) = await console.read(lambda tx: tx.users.find())
    assert (user.email, user.role, user.first_name, user.state) == ("ada@example.com", "DEVOPS", "Ada", "ACTIVE")
    event = await console.last_event()
    assert (event.action, event.detail) == ("login", {"method": "identity provider"})


async def test_the_request_has_a_state_a_nonce_and_a_proof_key_and_no_secret(
    console: Running, provider: IdentityProvider
) -> None:
    visitor = Visitor(console)
    address = (await visitor.get("/sign-in/oidc", follow=False)).headers["location"]
    query = visitor.page.next_request.url.params if visitor.page.next_request else {}
    assert address.startswith(provider.issuer + "/")
    assert {query["response_type"], query["code_challenge_method"], query["client_id"]} == {"code", "S256", CLIENT}
    assert all(len(query[name]) >= 43 for name in ("state", "nonce", "code_challenge"))
    assert query["redirect_uri"] == console.config.public_url + "/console/sign-in/oidc/callback"
    assert "secret" not in address
    cookie = visitor.page.headers["set-cookie"]
    assert cookie.startswith("__Host-oidc=")
    assert {"Secure", "HttpOnly"} <= set(cookie.split("; "))
    assert query["state"] not in cookie


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ({"claims": {"aud": "another-application"}}, "for another application"),
        ({"claims": {"aud": [CLIENT, "other"]}}, "given to another application"),
        ({"claims": {"azp": "other"}}, "given to another application"),
        ({"claims": {"aud": None}}, "for another application"),
        ({"claims": {"exp": 1_600_000_000}}, "has expired"),
        ({"claims": {"exp": "tomorrow"}}, "has no times"),
        ({"claims": {"exp": True}}, "has no times"),
        ({"claims": {"iat": time.time() + 3_600}}, "is not of now"),
        ({"claims": {"iat": 1_600_000_000}}, "is not of now"),
        ({"claims": {"nbf": time.time() + 3_600}}, "is not of now"),
        ({"claims": {"nonce": "of another sign-in"}}, "answers another sign-in"),
        ({"claims": {"nonce": None}}, "answers another sign-in"),
        ({"claims": {"iss": "https://evil.example"}}, "from another identity provider"),
        ({"claims": {"sub": None}}, "names no account"),
        ({"claims": {"sub": "x" * 300}}, "names no account"),
        ({"claims": {"email_verified": False}}, "has not verified"),
        ({"claims": {"email_verified": "true"}}, "has not verified"),
        ({"claims": {"email": "ada@evil.example"}}, "domain are not let in"),
        ({"claims": {"groups": ["tourists"]}}, "no role here"),
        ({"signer": "other"}, "not signed by one of its keys"),
        ({"signer": "none"}, "not signed by one of its keys"),
    ],
)
async def test_an_answer_that_is_not_right_lets_nobody_in(
    console: Running, provider: IdentityProvider, faults: dict[str, Any], told: str
) -> None:
    provider.faults(**faults)
    visitor = Visitor(console)
    await there_and_back(visitor, provider)
    assert visitor.page.status_code == 401
    assert visitor.cookie() is None
    assert told in visitor.text.lower()
    assert await console.read(lambda tx: tx.users.count()) == 0
    assert told in (await refusals(console))[-1]


async def test_an_unverified_address_lets_nobody_in(console: Running, provider: IdentityProvider) -> None:
    await add_person(console, "eve@example.com")  # there is such a user
    visitor = Visitor(console)
    await there_and_back(visitor, provider, "eve")
    assert (visitor.page.status_code, visitor.cookie()) == (401, None)
    assert "has not verified" in visitor.text


async def test_an_answer_counts_once(console: Running, provider: IdentityProvider) -> None:
    visitor = Visitor(console)
    leaving = await visitor.get("/sign-in/oidc", follow=False)
    kept = visitor.cookie("__Host-oidc")
    back = provider.sign_in(leaving.headers["location"], "ada")
    await visitor.get(back)
    assert visitor.at == "/"
    thief = Visitor(console)
    await thief.get(back)  # the address alone
    assert thief.page.status_code == 401
    thief.client.cookies.set("__Host-oidc", kept or "", domain="127.0.0.1")
    await thief.get(back)  # and with all that the browser had
    assert (thief.page.status_code, thief.cookie()) == (401, None)
    assert "used already" in thief.text


async def test_a_code_of_another_sign_in_is_refused(console: Running, provider: IdentityProvider) -> None:
    """Somebody puts the own code into a victim's browser, or a stolen code into the own."""
    first, second = Visitor(console), Visitor(console)
    leaving = [(await one.get("/sign-in/oidc", follow=False)).headers["location"] for one in (first, second)]
    back = [provider.sign_in(address, "ada") for address in leaving]
    await second.get(back[0])  # with its state
    assert second.page.status_code == 401
    code = back[0].partition("code=")[2].partition("&")[0]
    third = Visitor(console)
    await third.get("/sign-in/oidc", follow=False)
    state = (third.page.next_request.url.params if third.page.next_request else {})["state"]
    await third.get(f"/sign-in/oidc/callback?code={code}&state={state}")
    assert (third.page.status_code, third.cookie()) == (401, None)
    assert await console.read(lambda tx: tx.users.count()) == 0


@pytest.mark.parametrize(
    "query",
    ["", "?code=x", "?code=x&state=y", "?error=access_denied&state={state}", "?state={state}", "?code=x&state={state}&iss=evil"],
)
async def test_an_answer_that_is_none_is_refused_with_a_page(console: Running, query: str) -> None:
    visitor = Visitor(console)
    await visitor.get("/sign-in/oidc", follow=False)
    state = (visitor.page.next_request.url.params if visitor.page.next_request else {})["state"]
    await visitor.get("/sign-in/oidc/callback" + query.format(state=state))
    assert (visitor.page.status_code, visitor.cookie()) == (401, None)
    assert visitor.cookie("__Host-oidc") is None


async def test_an_answer_of_another_sign_in_uses_up_the_one_that_was_begun(console: Running, provider: IdentityProvider) -> None:
    visitor = Visitor(console)
    back = provider.sign_in((await visitor.get("/sign-in/oidc", follow=False)).headers["location"], "ada")
    kept = visitor.cookie("__Host-oidc")
    await visitor.get("/sign-in/oidc/callback?code=x&state=y")
    before = len(await console.audit())
    for address in (back, "/sign-in/oidc/callback?code=x&state=y"):
        visitor.client.cookies.set("__Host-oidc", kept or "", domain="127.0.0.1")
        await visitor.get(address)
        assert (visitor.page.status_code, visitor.cookie(), "used already" in visitor.text) == (401, None, True)
    assert len(await console.audit()) == before


async def test_stray_answers_are_counted_by_address(console: Running) -> None:
    stray = Visitor(console, "198.51.100.66")
    for _ in range(ADDRESS.free + 3):
        await stray.get("/sign-in/oidc", follow=False)
        await stray.get("/sign-in/oidc/callback?code=x&state=y")
    assert (stray.page.status_code, "too many failed sign-ins" in stray.text) == (429, True)
    assert len(await refusals(console)) == ADDRESS.free + 1
    assert [row.detail["what"] for row in await console.audit() if row.action == "lockOut"] == ["address"]


async def test_few_wait_for_the_provider(console: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_PROVIDER_WAITING", -page.MAX_PROVIDER_CALLS)
    visitor = Visitor(console)
    await visitor.get("/sign-in/oidc")
    assert (visitor.page.status_code, "too many people sign in" in visitor.text) == (429, True)
    monkeypatch.undo()
    for _ in range(3):  # a turn is given back
        await visitor.get("/sign-in/oidc", follow=False)
        assert visitor.page.status_code == 303


async def test_who_takes_too_long_begins_again(console: Running, provider: IdentityProvider) -> None:
    visitor = Visitor(console)
    back = provider.sign_in((await visitor.get("/sign-in/oidc", follow=False)).headers["location"], "ada")
    console.offset += 601
    await visitor.get(back)
    assert (visitor.page.status_code, visitor.cookie()) == (401, None)


async def test_roles_follow_the_provider_and_a_disabled_user_stays_out(console: Running, provider: IdentityProvider) -> None:
    user = await add_person(console, app=False, password=False)
    await add_person(console, email="grace@example.com")  # an admin remains
    await there_and_back(Visitor(console), provider)
    assert [row.role for row in await console.read(lambda tx: tx.users.find(id=user.id))] == ["DEVOPS"]
    await console.write(lambda tx: tx.users.change(user.id, state="DISABLED"))
    visitor = Visitor(console)
    await there_and_back(visitor, provider)
    assert "disabled here" in visitor.text


async def test_a_proof_comes_from_the_same_account_in_the_same_session(console: Running, provider: IdentityProvider) -> None:
    provider.add_user("bob", email="bob@example.com", email_verified=True, groups=["ops"])
    visitor = Visitor(console)
    await there_and_back(visitor, provider)
    console.offset += 301
    await visitor.get("/account/app")
    assert visitor.at == "/prove"
    assert "Confirm with Example ID" in visitor.text
    provider.faults(claims={"auth_time": int(console.clock())})
    await there_and_back(visitor, provider, "bob", "/prove/oidc?next=/console/account/app")
    assert (visitor.page.status_code, "another account" in visitor.text) == (401, True)
    leaving = await visitor.get("/prove/oidc?next=/console/account/app", follow=False)
    query = visitor.page.next_request.url.params if visitor.page.next_request else {}
    assert (query["prompt"], query["max_age"]) == ("login", "0")
    provider.faults(claims={"auth_time": int(console.clock())})
    await visitor.get(provider.sign_in(leaving.headers["location"], "ada"))
    assert visitor.at == "/account/app"


@pytest.mark.parametrize(
    ("seconds", "told"), [(-6, "have not signed in anew"), (-86_400, "have not signed in anew"), (None, "does not say when")]
)
async def test_a_sign_in_of_before_leaving_proves_nothing(
    console: Running, provider: IdentityProvider, seconds: int | None, told: str
) -> None:
    visitor = Visitor(console)
    await there_and_back(visitor, provider)
    leaving = await visitor.get("/prove/oidc?next=/console/account/app", follow=False)
    address = leaving.headers["location"].replace("&prompt=login", "").replace("&max_age=0", "")
    provider.faults(claims={"auth_time": None if seconds is None else console.clock() + seconds - 1})
    proved = await console.read(lambda tx: [row.proved_at_ms for row in tx.console_sessions.find()])
    await visitor.get(provider.sign_in(address, "ada"))
    assert (visitor.page.status_code, told in visitor.text) == (401, True)
    assert await console.read(lambda tx: [row.proved_at_ms for row in tx.console_sessions.find()]) == proved


@pytest.mark.parametrize(
    "changed",
    [
        {"allowed_outbound": ()},  # loopback is no public address
        {"authority": None},
        {"issuer": "https://localhost:1"},
    ],
)
async def test_a_provider_that_may_not_or_cannot_be_reached_says_so(
    tmp_path: Path, provider: IdentityProvider, changed: dict[str, Any]
) -> None:
    running = await opened(tmp_path, provider, **changed)
    visitor = Visitor(running)
    await visitor.get("/sign-in/oidc")
    assert visitor.page.status_code == 503
    assert int(visitor.page.headers["retry-after"]) >= 1
    assert "cannot be reached" in visitor.text
    assert "sign in another way" in visitor.text
    assert 'name="password"' in visitor.page.text, "the page that says so is the one on which it can be done"
    assert await refusals(running) == []
    await add_person(running)
    await visitor.sign_in_whole()
    assert visitor.page.status_code == 200
    assert visitor.cookie() is not None
    running.store.close()


async def test_a_provider_that_answers_nonsense_on_the_way_back_is_away_and_refuses_nobody(
    console: Running, provider: IdentityProvider
) -> None:
    provider.faults(size=300_000)
    visitor = Visitor(console)
    await there_and_back(visitor, provider)
    assert visitor.page.status_code == 503
    assert visitor.cookie() is None
    assert "cannot be reached, or does not answer as one" in visitor.text
    assert await console.read(lambda tx: tx.users.count()) == 0
    assert await refusals(console) == []


async def test_a_provider_with_another_name_is_not_believed(tmp_path: Path, provider: IdentityProvider) -> None:
    running = await opened(tmp_path, provider, issuer=provider.issuer + "/")
    visitor = Visitor(running)
    await visitor.get("/sign-in/oidc")
    assert (visitor.page.status_code, "calls itself otherwise" in visitor.text) == (401, True)
    running.store.close()


@pytest.mark.sqlite_only
async def test_without_a_provider_there_are_no_such_pages(controller: Running) -> None:
    visitor = Visitor(controller)
    for path in ("/sign-in/oidc", "/sign-in/oidc/callback", "/prove/oidc"):
        assert (await visitor.get(path, follow=False)).status_code == 404
    await visitor.get("/sign-in")
    assert "oidc" not in visitor.page.text


@pytest.mark.parametrize(
    ("domains", "roles", "new_role", "field"),
    [
        ([], [], None, "oidc-domain"),
        (["example.com"], ["ops"], None, "oidc-role"),
        (["example.com"], ["ops=KING"], None, "oidc-role"),
        (["example.com"], [], "KING", "oidc-create-users"),
    ],
)
def test_rules_that_are_none_are_refused(domains: list[str], roles: list[str], new_role: str | None, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_rules(domains, roles, new_role)
    assert refused.value.field == field


@pytest.mark.parametrize("issuer", ["http://id.example", "id.example", "https://", "https://id.example/?x", "https://a@b.c/#x"])
def test_an_issuer_is_an_https_url(issuer: str) -> None:
    with pytest.raises(InvalidInput, match="not an https URL"):
        OidcSettings(issuer=issuer, client_id="x", rules=parse_rules(["example.com"], [], None))


def test_the_secret_of_the_client_is_not_shown(provider: IdentityProvider) -> None:
    assert "not checked" not in repr(settings(provider))
