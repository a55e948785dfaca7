"""Ending a key with the key: whoever finds one can end it, without an account and without an admin (security.md 20).

The answer is the same whatever happens, and nothing but the key that signed is ended; the key file itself is never sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from klinket.controller.app import service_keys, sessions
from klinket.controller.app.ports import Actor, Store, Transaction
from klinket.controller.throttle import LoginThrottle
from klinket.domain.audit import ActorType
from klinket.domain.errors import AuthenticationFailed
from klinket.domain.identifiers import Kid, ServiceAccountUuid
from klinket.domain.service_key import KeyState
from klinket.wire import assertion, signing

logger = logging.getLogger(__name__)


class RevokeRequest(msgspec.Struct, frozen=True):
    """Body of a revocation: an assertion of its own kind, with an audience of its own."""

    assertion: str


class KeyRevocations:
    """Revokes keys for those who hold them; `revoke_url` is the audience, from the configuration only."""

    def __init__(self, store: Store, revoke_url: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._revoke_url = revoke_url
        self._clock = clock
        self._throttle = LoginThrottle()
        # Unknown keys are checked against this one, so that they take as long as known ones.
        self._decoy = signing.generate_private_key().public_key()

    async def revoke(self, request: RevokeRequest, address: str) -> None:
        """Revoke the key whose assertion this is, if it is one; raises Throttled for an address that failed too often."""
        kid = Kid("")
        try:
            kid = assertion.unverified_kid(request.assertion)
            await self._verify(request.assertion, kid)
        except AuthenticationFailed as error:
            self._throttle.failed(error, address, kid, time.monotonic())
            logger.warning("revocation refused: %s, from %s", error.code, address)
            return

        def revoke(tx: Transaction) -> None:
            key, account = sessions.key_for_login(tx, kid)
            if key.state(tx.now_ms) is KeyState.ACTIVE:
                holder = Actor(ActorType.SYSTEM, id=account.uuid, name=f"holder of a key of {account.name}", source=address)
                service_keys.revoke(tx, holder, key)

        await self._store.write(revoke)

    async def _verify(self, token: str, kid: Kid) -> None:
        found = await self._store.read(lambda tx: tx.service_keys.find(kid=kid))
        account = ""
        public_key = self._decoy
        if found:
            key = found[0]
            account = (await self._store.read(lambda tx: service_keys.account_of(tx, key))).uuid
            public_key = signing.public_key_from_pem(key.public_key)
        assertion.verify_assertion(
            token,
            public_key,
            kid=kid,
            account=ServiceAccountUuid(account),
            audience=self._revoke_url,
            now=self._clock(),
            typ=assertion.REVOKE_TYP,
        )
