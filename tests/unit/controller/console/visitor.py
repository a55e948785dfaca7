"""A browser without scripts: it keeps cookies, follows where it is led, fills in forms with what the page hides in them."""

from __future__ import annotations

import html
import os
import re
from base64 import b32decode
from typing import Any

import httpx2

from klinket.controller.app import passwords, recovery_codes, sign_in, sign_in_links, totp_secrets, users
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import UserRow
from klinket.controller.console.sign_in import totp
from klinket.controller.console.sign_in.password_hash import PasswordHasher
from klinket.controller.console.sign_in.proofs import sealed_as
from klinket.controller.console.sign_in.visit import KNOWN_COOKIE
from klinket.domain.audit import SYSTEM
from tests.unit.controller.running import SOURCE, Running

PASSWORD = "correct zebra lamp forest"
_HIDDEN = re.compile(r'<input type="hidden" name="([\w]+)" value="([^"]*)">')
_PHC: dict[str, str] = {}


class Visitor:
    """`page`: the last answer, after redirects within the console."""

    def __init__(self, running: Running, source: str = SOURCE) -> None:
        self.running = running
        transport = httpx2.ASGITransport(app=running.app, client=(source, 40_000))
        self.client = httpx2.AsyncClient(transport=transport, base_url=running.config.public_url)
        self.page = httpx2.Response(200)

    async def get(self, path: str, *, follow: bool = True, **headers: str) -> httpx2.Response:
        """Open a page below /console, or another address."""
        url = path if path.startswith(("/console", "https://")) else "/console" + path
        self.page = await self.client.get(url, headers={"sec-fetch-site": "same-origin", **headers}, follow_redirects=follow)
        return self.page

    async def post(self, path: str, *, hidden: bool = True, follow: bool = True, **fields: Any) -> httpx2.Response:
        """Send a form of the last page, with its hidden fields."""
        headers = {"origin": self.running.config.public_url, "sec-fetch-site": "same-origin"}
        form = {**(self.hidden() if hidden else {}), **fields}
        self.page = await self.client.post("/console" + path, data=form, headers=headers, follow_redirects=follow)
        return self.page

    def hidden(self) -> dict[str, str]:
        """Return the hidden fields of the last page."""
        return {name: html.unescape(value) for name, value in _HIDDEN.findall(self.page.text)}

    @property
    def text(self) -> str:
        """Return the words of the last page."""
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", self.page.text)).split())

    @property
    def at(self) -> str:
        """Return where the last page is, below /console."""
        return self.page.url.path.removeprefix("/console")

    def cookie(self, name: str = "__Host-sid") -> str | None:
        return self.client.cookies.get(name)

    def forget_browser(self) -> None:
        """Be a browser that has never signed in."""
        self.client.cookies.delete(KNOWN_COOKIE)

    async def sign_in(self, email: str = "ada@example.com", password: str = PASSWORD) -> httpx2.Response:
        """Take the first step."""
        await self.get("/sign-in")
        return await self.post("/sign-in", email=email, password=password)

    async def sign_in_whole(self, email: str = "ada@example.com") -> None:
        """Take both steps, the second with an authenticator app."""
        await self.sign_in(email)
        await self.post("/sign-in/factor", code=await code_of(self.running, email))
        assert self.at == "/", self.text


async def add_person(
    running: Running, email: str = "ada@example.com", role: str = "ADMIN", *, app: bool = True, password: bool = True
) -> UserRow:
    """Return a user who can sign in with PASSWORD and an authenticator app."""
    if PASSWORD not in _PHC:
        _PHC[PASSWORD] = await PasswordHasher(os.urandom).hashed(PASSWORD)

    def add(tx: Transaction) -> UserRow:
        row = users.create(tx, SYSTEM, email=email, first_name="Ada", last_name=None, role=role)
        row = tx.users.change(row.id, state=users.ACTIVE)
        if password:
            passwords.put(tx, SYSTEM, row, _PHC[PASSWORD])
        if app:
            sealed = running.master.seal(os.urandom(20), sealed_as(row.id))
            totp_secrets.confirm(tx, SYSTEM, row, totp_secrets.offer(tx, row.id, sealed).id, 0)
        return row

    return await running.write(add)


async def code_of(running: Running, email: str = "ada@example.com") -> str:
    """Return the code that the authenticator app shows, of a step that was not used yet: the clock moves on for it."""

    def stored(tx: Transaction) -> tuple[int, bytes, int]:
        (user,) = tx.users.find(email=email)
        row = totp_secrets.confirmed(tx, user.id)
        assert row is not None
        return user.id, row.sealed, row.last_step

    user, sealed, last = await running.read(stored)
    if int(running.clock()) // totp.STEP_SECONDS <= last:
        running.offset += totp.STEP_SECONDS
    return totp.code_at(running.master.open(sealed, sealed_as(user)), running.clock())


async def secret_of(running: Running, email: str = "ada@example.com") -> bytes:
    """Return the secret of somebody's authenticator app."""

    def stored(tx: Transaction) -> tuple[int, bytes]:
        (user,) = tx.users.find(email=email)
        row = totp_secrets.confirmed(tx, user.id)
        assert row is not None
        return user.id, row.sealed

    user, sealed = await running.read(stored)
    return running.master.open(sealed, sealed_as(user))


def shown_secret(text: str) -> bytes:
    """Return the secret that a page shows for typing."""
    found = re.search(r'id="secret">([A-Z2-7 ]+)<', text)
    assert found is not None
    return b32decode(found[1].replace(" ", ""))


async def codes_of(running: Running, user: UserRow) -> list[str]:
    return await running.write(lambda tx: recovery_codes.replace(tx, SYSTEM, user, os.urandom))


async def link_of(running: Running, user: UserRow | None) -> str:
    """Return the code of a new one-time link."""
    return await running.write(lambda tx: sign_in_links.create(tx, SYSTEM, user, os.urandom))


async def whole_session(running: Running, user: UserRow) -> str:
    """Return the text of a whole session of a user."""
    browser = sign_in.Browser(SOURCE, "a browser")
    return (await running.write(lambda tx: sign_in.enter(tx, user, browser, "test", os.urandom)))[1]
