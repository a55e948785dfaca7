"""A controller with users, and browsers that are signed in as each of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from klinket.controller.app import console_sessions, users
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.console.gate import COOKIE
from klinket.domain.audit import SYSTEM
from tests.unit.controller.running import SOURCE, Running

ROLES = ("ADMIN", "DEVOPS", "SUPPORT", "MEMBER")


@dataclass
class Browser:
    """What a browser does with pages: it keeps its cookie, says where requests come from, sends forms with their token."""

    running: Running
    cookie: str = ""
    form_token: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        """Open a page below /console, or a full path."""
        return await self._send("GET", path, None, {"sec_fetch_site": "same-origin", **headers})

    async def post(
        self, path: str, fields: dict[str, Any] | None = None, *, token: str | None = None, **headers: str
    ) -> httpx2.Response:
        """Send a form."""
        given = {"form_token": self.form_token if token is None else token, **(fields or {})}
        source = {"origin": self.running.config.public_url, "sec_fetch_site": "same-origin"}
        return await self._send("POST", path, given, {**source, **headers})

    async def _send(self, method: str, path: str, form: dict[str, Any] | None, headers: dict[str, str]) -> httpx2.Response:
        told = {name.replace("_", "-"): value for name, value in {**self.headers, **headers}.items() if value}
        if self.cookie:
            told["cookie"] = f"{COOKIE}={self.cookie}"
        full = path if path.startswith("/console") else "/console" + path
        async with self.running.http(SOURCE) as client:
            return await client.request(method, full, data=form, headers=told, follow_redirects=False)

    def seen(self, page: httpx2.Response) -> str:
        """Return the mark of a form's object, as the page shows it."""
        found = re.search(r'name="seen" value="(\d+)"', page.text)
        assert found is not None
        return found.group(1)


async def signed_in(running: Running, role: str, *, email: str | None = None, stage: Stage = Stage.FULL) -> Browser:
    """Return the browser of a user who has just signed in."""

    def begin(tx: Transaction) -> tuple[str, str]:
        address = email or f"{role.lower()}@example.com"
        found = tx.users.find(email=address)
        user = found[0] if found else users.create(tx, SYSTEM, email=address, first_name=role.title(), last_name=None, role=role)
        user = tx.users.change(user.id, state=users.ACTIVE)
        row, text = console_sessions.begin(tx, user, stage, address=SOURCE, user_agent="a browser", entropy=os.urandom)
        return text, row.form_token

    return Browser(running, *await running.write(begin))


@pytest.fixture
async def admin(controller: Running) -> Browser:
    return await signed_in(controller, "ADMIN")


@pytest.fixture
async def devops(controller: Running) -> Browser:
    return await signed_in(controller, "DEVOPS")


@pytest.fixture
async def support(controller: Running) -> Browser:
    return await signed_in(controller, "SUPPORT")
