"""Each secret opens the one door it was made for: every one is shown at every door of a controller (security.md 10, 26)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from klinket.controller.app import console_sessions, recovery_codes, relays, sign_in_links, users
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.console.gate import COOKIE
from klinket.controller.trust import KeyPurpose
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import AuthenticationFailed, KlinketError
from klinket.domain.grant import Principal
from klinket.domain.identifiers import Kid, RemoteNetworkId, ServiceAccountUuid, SessionId
from klinket.net.certificate_request import certificate_request
from klinket.wire import access_token, assertion, grant_token, head_token, signing, ticket
from klinket.wire.key_file import LOGIN_PATH
from klinket.wire.paths import CUTS_PATH, EXTENSION_PATH, GRAPHQL_PATH, LOGOUT_PATH, REVOKE_PATH, VALIDATE_TOKENS_PATH
from tests.unit.controller.running import NETWORK, Running

Door = Callable[[str], Awaitable[bool]]


class Building:
    """One of each secret, and one of each door. A door returns whether it let the secret in."""

    def __init__(self, controller: Running) -> None:
        self.controller = controller

    async def fill(self) -> None:
        running = self.controller
        office = await running.add_network()
        self.account = await running.add_account("ci", [await running.add_resource(office)])
        self.key, self.key_file = await running.add_key(self.account)
        self.session = await running.log_in(self.key_file)
        self.tokens = await running.connector_tokens(await running.add_connector(office))
        self.connector = await running.enrol(self.tokens)

        def people(tx: Transaction) -> tuple[int, str, str, str, str]:
            user = users.create(tx, SYSTEM, email="ada@example.com", first_name="Ada", last_name="L", role="ADMIN")
            tx.users.change(user.id, state="ACTIVE")
            link = sign_in_links.create(tx, SYSTEM, user, os.urandom)
            code = recovery_codes.replace(tx, SYSTEM, user, os.urandom)[0]
            begun = console_sessions.begin(tx, user, Stage.FULL, address="192.0.2.1", user_agent="test", entropy=os.urandom)
            return user.id, link, code, begun[1], relays.create_or_replace(tx, SYSTEM, name="one", entropy=os.urandom)[1]

        self.user, link, code, console, relay = await running.write(people)
        now = running.clock()
        jkt = signing.thumbprint(self.session.key.public_key())
        signers = running.trust.signers
        principal = Principal(
            ServiceAccountUuid(self.key_file.service_account_id), Kid(self.key_file.key_id), SessionId(self.session.id)
        )

        def asserted(typ: str, path: str) -> str:
            audience = running.config.public_url + path
            return str(running.login_body(self.key_file, self.session.key, typ=typ, audience=audience)["assertion"])

        self.secrets: dict[str, str] = {
            "API token": running.tokens[("read",)],
            "connector access token": self.tokens["access_token"],
            "connector refresh token": self.tokens["refresh_token"],
            "relay token": relay,
            "console cookie": console,
            "one-time link": link,
            "recovery code": code,
            "login assertion": asserted(assertion.LOGIN_TYP, LOGIN_PATH),
            "end assertion": asserted(assertion.END_TYP, LOGOUT_PATH),
            "revoke assertion": asserted(assertion.REVOKE_TYP, REVOKE_PATH),
            "client's access token": self.session.token,
            "connector's access token (JWT)": self.connector.token,
            "session proof": access_token.sign_proof(self.session.key, "nonce", now=now),
            "grant": grant_token.sign_grant(
                signers[KeyPurpose.GRANT], network=NETWORK, remote_network=RemoteNetworkId(1), principal=principal, jkt=jkt,
                stamp=(1, 1), resources=[], now=now, lifetime=60,
            ),
            "ticket": ticket.sign_ticket(
                signers[KeyPurpose.TICKET], network=NETWORK, role=ticket.TicketRole.CLIENT, holder=self.session.id, relay=1,
                connectors=[1], now=now, lifetime=60, id="t1", account=self.key_file.service_account_id,
            ),
            "head": head_token.sign_head(signers[KeyPurpose.HEAD], (1, 1), network=NETWORK, now=now),
            "form token": "0" * 48,
        }  # fmt: skip

    # ---- doors

    def doors(self) -> dict[str, tuple[set[str], Door]]:
        """Return each door with the secrets that it is for."""
        return {
            "Admin API": ({"API token"}, lambda s: self._get(GRAPHQL_PATH, "X-API-KEY", s, post=True)),
            "extension API": ({"API token"}, lambda s: self._get(EXTENSION_PATH, "X-API-KEY", s, post=True)),
            "receipts": ({"API token"}, lambda s: self._get(CUTS_PATH, "X-API-KEY", s)),
            "token check, access": ({"connector access token"}, lambda s: self._pair(s, self.tokens["refresh_token"])),
            "token check, refresh": ({"connector refresh token"}, lambda s: self._pair(self.tokens["access_token"], s)),
            "relay channel": ({"relay token"}, lambda s: self._asked(lambda tx: relays.by_token(tx, s))),
            "console": ({"console cookie"}, lambda s: self._get("/console/", "Cookie", f"{COOKIE}={s}")),
            "link": ({"one-time link"}, lambda s: self._asked(lambda tx: sign_in_links.by_text(tx, s))),
            "recovery": ({"recovery code"}, lambda s: self._asked(lambda tx: recovery_codes.redeem(tx, self.user, s))),
            "login": ({"login assertion"}, self._login),
            "live channel": ({"client's access token", "connector's access token (JWT)"}, self._attach),
        }

    async def _get(self, path: str, header: str, value: str, *, post: bool = False) -> bool:
        running, body = self.controller, {"query": "{ __typename }"}
        headers = {header: value}
        answer = await (running.post(path, body, headers=headers) if post else running.get(path, headers=headers))
        assert answer.status_code in (200, 303, 401, 429), answer.text
        return answer.status_code == 200

    async def _pair(self, access: str, refresh: str) -> bool:
        headers = {"Authorization": f"Bearer {access}"}
        answer = await self.controller.post(VALIDATE_TOKENS_PATH, {"refresh_token": refresh}, headers=headers)
        assert answer.status_code in (200, 410)
        return answer.status_code == 200

    async def _asked(self, ask: Callable[[Transaction], Any]) -> bool:
        try:
            await self.controller.write(ask)
        except KlinketError:
            return False
        return True

    async def _login(self, secret: str) -> bool:
        body = {"grant_type": assertion.GRANT_TYPE, "assertion": secret}
        answer = await self.controller.post(LOGIN_PATH, body | {"certificate_request": certificate_request(self.session.key)})
        return answer.status_code == 200

    async def _attach(self, secret: str) -> bool:
        keys, now = self.controller.trust.keys[KeyPurpose.ACCESS], self.controller.clock()
        try:
            access_token.verify(secret, keys, network=NETWORK, now=now)
        except AuthenticationFailed:
            return False
        return True


async def test_each_secret_opens_its_own_door_and_no_other(controller: Running) -> None:
    building = Building(controller)
    await building.fill()
    for name, (own, door) in building.doors().items():
        # The right ones last: some are used up.
        shown = sorted(building.secrets, key=lambda secret: secret in own)
        let_in = {secret for secret in shown if await door(building.secrets[secret])}
        assert let_in == own, f"{name}: let in {sorted(let_in)}"


async def test_no_other_secret_ends_a_session_or_a_key(controller: Running) -> None:
    building = Building(controller)
    await building.fill()
    for path, own in ((LOGOUT_PATH, "end assertion"), (REVOKE_PATH, "revoke assertion")):
        for name, secret in building.secrets.items():
            if name != own:
                await controller.post(path, {"assertion": secret}, source=f"198.51.100.{len(name)}")
    (session,) = await controller.read(lambda tx: tx.sessions.find())
    (key,) = await controller.read(lambda tx: tx.service_keys.find())
    assert (session.ended_at_ms, key.revoked_at_ms) == (None, None)
    for path, own in ((LOGOUT_PATH, "end assertion"), (REVOKE_PATH, "revoke assertion")):
        assert (await controller.post(path, {"assertion": building.secrets[own]})).status_code == 204
    (session,) = await controller.read(lambda tx: tx.sessions.find())
    (key,) = await controller.read(lambda tx: tx.service_keys.find())
    assert session.ended_at_ms is not None
    assert key.revoked_at_ms is not None
