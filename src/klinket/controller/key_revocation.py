"""Ending a key with the key: whoever finds one can end it, without an account and without an admin (security.md 20).

The answer is the same whatever happens, and nothing but the key that signed is ended; the key file itself is never sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from klinket.controller.app import key_seats, service_keys, sessions
from klinket.controller.app.ports import Actor, Store, Transaction
from klinket.domain.audit import ActorType
from klinket.domain.errors import AuthenticationFailed, Throttled
from klinket.domain.identifiers import Kid, ServiceAccountUuid
from klinket.domain.service_key import KeyState
from klinket.domain.token_buckets import TokenBuckets
from klinket.net.sources import source_of
from klinket.wire import assertion, signing

logger = logging.getLogger(__name__)

#: Revocations of one address that end nothing, at once, and how fast they are forgiven a second.
FAILED_REVOCATIONS = 20
FAILED_REVOCATIONS_PER_SECOND = 0.2


class RevokeRequest(msgspec.Struct, frozen=True):
    """Body of a revocation: an assertion of its own kind, with an audience of its own."""

    assertion: str


class KeyRevocations:
    """Revokes keys for those who hold them; `revoke_url` is the audience, from the configuration only."""

    def __init__(
        self, store: Store, revoke_url: str, clock: Callable[[], float], count_alarm: Callable[[str], None] = lambda _: None
    ) -> None:
        """`count_alarm`: called with what somebody tries with a canary key."""
        self._count_alarm = count_alarm
        self._store = store
        self._revoke_url = revoke_url
        self._clock = clock
        self._failures = TokenBuckets(FAILED_REVOCATIONS, FAILED_REVOCATIONS_PER_SECOND)
        # Unknown keys are checked against this one, so that they take as long as known ones.
        self._decoy = signing.public_key_to_pem(signing.generate_private_key().public_key())

    async def revoke(self, request: RevokeRequest, address: str) -> None:
        """Revoke the key whose assertion this is, if it is one; raises Throttled for an address that failed too often."""
        try:
            kid = assertion.unverified_kid(request.assertion)
            await self._verify(request.assertion, kid)
        except AuthenticationFailed as error:
            logger.warning("revocation refused: %s, from %s", error.code, address)
            self._failed(address, error)
            return

        def revoke(tx: Transaction) -> bool:
            key, account = sessions.key_for_login(tx, kid)
            if key.is_canary:
                key_seats.alarm(tx, key, account, address, attempt="revocation", signed=True)
                return False
            if key.state(tx.now_ms) is KeyState.ACTIVE:
                holder = Actor(ActorType.SYSTEM, id=account.uuid, name=f"holder of a key of {account.name}", source=address)
                service_keys.revoke(tx, holder, key)
            return True

        if not await self._store.write(revoke):
            self._count_alarm("revocation")
            self._failed(address)

    def _failed(self, address: str, error: AuthenticationFailed | None = None) -> None:
        """Count an attempt that ended nothing; raises Throttled. A proof is cheap to check, so it comes first: nobody's attempts
        keep somebody from the same address from ending a key."""
        wait = self._failures.take(source_of(address), time.monotonic())
        if wait:
            raise Throttled.again_in(
                wait, f"too many revocations from {address} that end nothing: {FAILED_REVOCATIONS} are allowed"
            ) from error

    async def _verify(self, token: str, kid: Kid) -> None:
        """Raise AuthenticationFailed unless the key has signed; the same reads and checks for a key that does not exist."""

        def look(tx: Transaction) -> tuple[str, str]:
            found = tx.service_keys.find(kid=kid)
            account = tx.service_accounts.get(found[0].service_account_id if found else 0)
            if not found or account is None:
                return self._decoy, ""
            return found[0].public_key, account.uuid

        public_key, account = await self._store.read(look)
        assertion.verify_assertion(
            token,
            signing.public_key_from_pem(public_key),
            kid=kid,
            account=ServiceAccountUuid(account),
            audience=self._revoke_url,
            now=self._clock(),
            typ=assertion.REVOKE_TYP,
        )
