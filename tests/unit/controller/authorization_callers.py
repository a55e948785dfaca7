"""A controller and one of every caller of tests/authorization.py, each with a credential that is valid at its own doors."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from itertools import count
from typing import Any

from klinket.controller.app import api_tokens, console_sessions, relays, users
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.console.gate import COOKIE
from klinket.domain.audit import SYSTEM
from klinket.net.certificate_request import certificate_request
from klinket.wire import assertion, signing
from klinket.wire.key_file import LOGIN_PATH
from klinket.wire.paths import ENROL_PATH, LOGOUT_PATH, REVOKE_PATH
from tests.unit.controller.running import Running

#: Of the console's callers: role and stage.
PEOPLE = {
    "begun": ("ADMIN", Stage.SECOND_FACTOR),
    "set-up": ("ADMIN", Stage.SET_UP),
    **{role: (role, Stage.FULL) for role in ("MEMBER", "SUPPORT", "DEVOPS", "ADMIN")},
}
#: What a browser with a console's page says of where a request comes from.
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@dataclass(frozen=True)
class Answer:
    """The beginning of an answer; `text` is empty for one that goes on and on."""

    status: int
    location: str
    text: str


class Callers:
    """Each request comes from another network, so that nobody is slowed for what others guessed."""

    def __init__(self, running: Running) -> None:
        self.running = running
        #: What each caller shows wherever a credential is asked for.
        self.secrets = {"nobody": ""}
        self._form_tokens: dict[str, str] = {}
        self._numbers = count(1)

    async def arrive(self) -> None:
        running = self.running
        # The first of everything is there for paths with the id 1: what is done to it harms no caller.
        office = await running.add_network()
        await running.add_key(await running.add_account("other", [await running.add_resource(office)]))
        await running.add_connector(office, "other")
        await running.change('mutation { groupCreate(name: "other") { ok error } }')

        def fill(tx: Transaction) -> dict[str, str]:
            for name in ("other", *PEOPLE):
                role = PEOPLE[name][0] if name in PEOPLE else "MEMBER"
                row = users.create(tx, SYSTEM, email=f"{name.lower()}@example.com", first_name=name, last_name=None, role=role)
                tx.users.change(row.id, state=users.ACTIVE)
                if name == "other":
                    console_sessions.begin(tx, row, Stage.FULL, address="", user_agent="", entropy=os.urandom)
            relays.create_or_replace(tx, SYSTEM, name="other", entropy=os.urandom)
            made = {
                scope: api_tokens.create(tx, SYSTEM, name=f"of the table: {scope}", scopes=[scope], entropy=os.urandom)[1]
                for scope in api_tokens.ALL_SCOPES
            }
            return {**made, "relay": relays.create_or_replace(tx, SYSTEM, name="one", entropy=os.urandom)[1]}

        self.secrets |= await running.write(fill)
        self.account = await running.add_account("ci", [await running.add_resource(office, "Wiki", "wiki.internal")])
        _, self.key_file = await running.add_key(self.account)
        self.session = await running.log_in(self.key_file)
        self.tokens = await running.connector_tokens(await running.add_connector(office, "one"))
        self.connector = await running.enrol(self.tokens)
        self.secrets |= {"client": self.session.token, "connector": self.tokens["access_token"]}
        await self.sign_in()

    async def sign_in(self) -> None:
        """Give everybody with a console a session that has just begun: some pages end the one they are asked with."""

        def begin(tx: Transaction) -> dict[str, tuple[str, str]]:
            made = {}
            for name, (_, stage) in PEOPLE.items():
                (user,) = tx.users.find(email=f"{name.lower()}@example.com")
                row, text = console_sessions.begin(tx, user, stage, address="", user_agent="", entropy=os.urandom)
                made[name] = text, row.form_token
            return made

        for name, (text, form_token) in (await self.running.write(begin)).items():
            self.secrets[name], self._form_tokens[name] = text, form_token

    def source(self) -> str:
        return f"2001:db8:0:{next(self._numbers):x}::1"

    async def ask(self, caller: str, method: str, path: str, source: str = "", **sent: Any) -> Answer:
        """Return the answer to a caller that shows its credential in every header that any door reads. `sent`: httpx's words."""
        secret = self.secrets[caller]
        headers = dict(SAME_ORIGIN)
        if secret:
            headers |= {"x-api-key": secret, "authorization": f"Bearer {secret}", "cookie": f"{COOKIE}={secret}"}
        async with self.running.http(source or self.source()) as client:
            request = client.build_request(method, path, headers=headers, **sent)
        return await _begun(self.running.app, request, source or self.source())

    async def visit(self, caller: str, method: str, path: str) -> Answer:
        """Open a page, or send its form with nothing but the token of the session."""
        if method == "GET":
            return await self.ask(caller, method, path)
        return await self.ask(caller, method, path, data={"form_token": self._form_tokens.get(caller, "0" * 48)})

    async def body(self, caller: str, path: str) -> dict[str, Any]:
        """Return what a caller sends to a path that takes its credential in the body."""
        running, secret = self.running, self.secrets[caller]
        if path == ENROL_PATH:
            tokens = self.tokens if caller == "connector" else {"access_token": secret, "refresh_token": secret}
            return {**tokens, "certificate_request": certificate_request(self.connector.key)}
        refresh = self.tokens["refresh_token"] if caller == "connector" else secret
        body = {"grant_type": assertion.GRANT_TYPE, "assertion": secret, "token": secret, "refresh_token": refresh}
        body |= {"query": "{ __typename }", "certificate_request": certificate_request(self.session.key)}
        if caller != "client":
            return body
        kinds = {LOGIN_PATH: assertion.LOGIN_TYP, LOGOUT_PATH: assertion.END_TYP, REVOKE_PATH: assertion.REVOKE_TYP}
        if path in kinds:  # with a key and a session of their own, since two of these end them
            _, key_file = await running.add_key(self.account)
            session = await running.log_in(key_file)
            audience = running.config.public_url + path
            signed = running.login_body(key_file, session.key, typ=kinds[path], audience=audience)
            body |= {"assertion": signed["assertion"], "certificate_request": signed["certificate_request"]}
        return body

    def attaches_with(self, caller: str) -> tuple[str, signing.PrivateKey]:
        """Return the access token and the key with which a caller comes to the live channel."""
        if caller == "client":
            return self.session.token, self.session.key
        if caller == "connector":
            return self.connector.token, self.connector.key
        return self.secrets[caller], signing.generate_private_key()


async def _begun(app: Any, request: Any, source: str) -> Answer:
    """Return how an app begins to answer: some answers, such as the console's live updates, have no end."""
    begun: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    ended, body, sent = asyncio.Event(), bytearray(), iter([True])

    async def receive() -> dict[str, Any]:
        if next(sent, False):
            return {"type": "http.request", "body": request.content, "more_body": False}
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            begun.set_result(message)
        body.extend(message.get("body", b""))

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method, "scheme": "https",
        "path": request.url.path, "raw_path": request.url.raw_path, "query_string": request.url.query, "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": (source, 40_000), "server": ("127.0.0.1", request.url.port),
    }  # fmt: skip
    task = asyncio.create_task(app(scope, receive, send))
    await asyncio.wait([task, begun], return_when=asyncio.FIRST_COMPLETED)
    start = begun.result()
    headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    if headers.get("content-type", "").startswith("text/event-stream"):
        ended.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    else:
        await task
    return Answer(start["status"], headers.get("location", ""), bytes(body).decode(errors="replace"))


def filled(path: str) -> str:
    """Return a path that leads to a route: ids are 1, texts are "x"."""
    return re.sub(r"{\w+}", "x", re.sub(r"{(id|key|resource|session)}", "1", path))
