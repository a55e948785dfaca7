"""The first second factor: who knows the password alone neither copies it nor adds another."""

from __future__ import annotations

import os

import pytest

from klinket.controller.app import console_sessions, sign_in, users
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ConsoleSessionRow
from klinket.controller.console.sign_in import totp
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import SignInOver
from tests.unit.controller.console.visitor import Visitor, add_person, link_of, secret_of, shown_secret
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only


async def offered(visitor: Visitor) -> bytes:
    """Return the secret that a visitor is shown after the first step."""
    await visitor.sign_in()
    await visitor.get("/sign-in/set-up/app")
    return shown_secret(visitor.page.text)


async def test_a_secret_is_shown_in_the_session_it_was_made_for_alone(controller: Running) -> None:
    await add_person(controller, app=False)
    eve, ada = Visitor(controller, "198.51.100.66"), Visitor(controller)
    theirs, hers = await offered(eve), await offered(ada)
    assert theirs != hers
    await eve.get("/sign-in/app.svg")
    assert eve.page.status_code == 404
    await ada.get("/sign-in/set-up/app")
    assert shown_secret(ada.page.text) == hers
    await ada.post("/sign-in/set-up/app", code=totp.code_at(hers, controller.clock()))
    assert ada.page.status_code == 200
    assert await secret_of(controller) == hers
    await ada.get("/")
    assert ada.at == "/"


async def test_who_sets_up_the_first_factor_ends_the_other_sign_ins_that_are_not_finished(controller: Running) -> None:
    await add_person(controller, app=False)
    eve, ada = Visitor(controller, "198.51.100.66"), Visitor(controller)
    await offered(eve)
    hers = await offered(ada)
    await ada.post("/sign-in/set-up/app", code=totp.code_at(hers, controller.clock()))
    await eve.get("/sign-in/set-up/app")
    assert eve.at == "/sign-in"
    await eve.sign_in()
    assert eve.at == "/sign-in/factor"


async def test_a_first_factor_is_refused_where_there_is_one_meanwhile_and_the_session_ends(controller: Running) -> None:
    person = await add_person(controller, app=False)
    eve = Visitor(controller, "198.51.100.66")
    secret = await offered(eve)
    await controller.write(
        lambda tx: tx.passkeys.add(
            user_id=person.id, name="Key", credential_id="x", public_key=b"x", sign_count=0, transports=[], last_used_ms=None
        )
    )
    await eve.post("/sign-in/set-up/app", code=totp.code_at(secret, controller.clock()))
    assert "has a second factor already" in eve.text
    assert eve.cookie() is None
    assert await controller.read(lambda tx: tx.console_sessions.count()) == 0
    assert await controller.read(lambda tx: tx.totp_secrets.count(is_confirmed=True)) == 0


async def test_a_session_that_ended_or_went_on_meanwhile_is_not_completed(controller: Running) -> None:
    person = await add_person(controller)
    here = sign_in.Browser("192.0.2.1", "a browser")

    def begin(tx: Transaction) -> ConsoleSessionRow:
        return console_sessions.begin(tx, person, Stage.SECOND_FACTOR, address="", user_agent="", entropy=os.urandom)[0]

    ended, gone_on = await controller.write(begin), await controller.write(begin)
    await controller.write(lambda tx: console_sessions.end(tx, id=ended.id))
    await controller.write(lambda tx: sign_in.complete(tx, gone_on, person, here, "password+totp", os.urandom))
    for row in (ended, gone_on):
        with pytest.raises(SignInOver):
            await controller.write(lambda tx, row=row: sign_in.complete(tx, row, person, here, "password+totp", os.urandom))


async def test_after_a_reset_the_password_alone_opens_nothing(controller: Running) -> None:
    person = await add_person(controller)
    await controller.write(lambda tx: users.reset_second_factor(tx, SYSTEM, person))
    eve = Visitor(controller)
    await eve.sign_in()
    assert eve.at == "/sign-in"
    assert eve.cookie() is None


async def test_a_one_time_link_takes_the_linked_accounts_too(controller: Running) -> None:
    person = await add_person(controller)
    await controller.write(
        lambda tx: tx.oidc_identities.add(user_id=person.id, issuer="https://id.example", subject="eve", last_used_ms=0)
    )
    link, ada = await link_of(controller, person), Visitor(controller)
    await ada.get("/sign-in/link")
    await ada.post("/sign-in/link", link=link)
    new = "brand new sentence of mine"
    await ada.post("/sign-in/link/account", firstName="Ada", lastName="", password=new, again=new)
    assert ada.at == "/sign-in/set-up"
    assert await controller.read(lambda tx: tx.oidc_identities.count()) == 0
