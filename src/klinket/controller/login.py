"""Logins with a service key (RFC 7523), and what a session is given: certificate and access token."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from klinket.controller import head_guard
from klinket.controller.app import account_limits, key_hygiene, key_seats, sessions
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.refused_logins import RefusedLogins
from klinket.controller.app.rows import ServiceAccountRow, ServiceKeyRow
from klinket.controller.app.store_errors import StoreUnavailable
from klinket.controller.authority import AuthorityPurpose, parse_request
from klinket.controller.throttle import LoginThrottle
from klinket.controller.trust import KeyPurpose, Trust
from klinket.controller.unproven_refusals import UnprovenRefusals
from klinket.domain.account_limits import AccountLimits
from klinket.domain.errors import (
    AssertionStale,
    AuthenticationFailed,
    InvalidInput,
    InvalidToken,
    KlinketError,
    ServiceKeyUnknown,
    Throttled,
    WrongSignature,
)
from klinket.domain.grant import Principal
from klinket.domain.identifiers import Kid, ServiceAccountUuid, SessionId
from klinket.wire import access_token, assertion, signing
from klinket.wire.assertion import GRANT_TYPE, Assertion
from klinket.wire.identity import ClientIdentity

logger = logging.getLogger(__name__)

#: Seconds a client's certificate lives; renewed at half of that with the same key.
CLIENT_CERTIFICATE_SECONDS = 3600.0


class ClientFacts(msgspec.Struct, frozen=True):
    """What a client says of itself."""

    version: str = ""
    hostname: str = ""
    os: str = ""


class LoginRequest(msgspec.Struct, frozen=True):
    """Body of a login. `certificate_request`: PKCS#10, PEM, for the session key."""

    assertion: str
    certificate_request: str
    grant_type: str = GRANT_TYPE
    client: ClientFacts = ClientFacts()


class LoginAnswer(msgspec.Struct, frozen=True):
    """Body of the answer."""

    session: str
    network: str
    certificate: str
    access_token: str
    expires_at_ms: int
    time_ms: int


class EndRequest(msgspec.Struct, frozen=True):
    """Body of a logout: an assertion of its own kind."""

    assertion: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a session holds for a while."""

    certificate: str
    access_token: str
    expires_at: float


def issue(trust: Trust, principal: Principal, key: signing.PublicKey, key_expires_at: float | None, now: float) -> Credentials:
    """Return a certificate and access token for a session key; they end with the service key at the latest."""
    lifetime = CLIENT_CERTIFICATE_SECONDS
    if key_expires_at is not None:
        lifetime = max(1.0, min(lifetime, key_expires_at - now))
    identity = ClientIdentity(trust.network, principal)
    certificate = trust.authorities[AuthorityPurpose.CLIENT].certify(key, identity.uri, now=now, lifetime=lifetime)
    token = access_token.issue(trust.signers[KeyPurpose.ACCESS], identity, signing.thumbprint(key), now=now, lifetime=lifetime)
    return Credentials(certificate, token, now + lifetime)


class Logins:
    """Answers logins; `login_url` and `logout_url` are the audiences, from the configuration only."""

    def __init__(
        self,
        store: Store,
        trust: Trust,
        login_url: str,
        logout_url: str,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        attached: Callable[[], Collection[str]],
        count_alarm: Callable[[str], None] = lambda _: None,
        began: Callable[[str], None] = lambda _: None,
        refused: RefusedLogins | None = None,
        unproven: UnprovenRefusals | None = None,
    ) -> None:
        """`attached`: gives the sessions that are attached now; others free their seats (security.md 20).

        `count_alarm`: called with what somebody tries with a canary key; `began`: with each session that begins.
        `refused`: where logins that a limit refuses are counted; `unproven`: writes refusals of who did not prove a key.
        """
        self.unproven = unproven or UnprovenRefusals(store)
        self._began = began
        self._refused = refused or RefusedLogins()
        self._count_alarm = count_alarm
        self._attached = attached
        self._store = store
        self._trust = trust
        self._login_url = login_url
        self._logout_url = logout_url
        self._clock = clock
        self._entropy = entropy
        self._throttle = LoginThrottle()
        # Unknown keys are checked against this one, so that they take as long as known ones.
        self._decoy = signing.public_key_to_pem(signing.generate_private_key().public_key())

    async def login(self, request: LoginRequest, address: str) -> LoginAnswer:
        """Return a new session; raises AuthenticationFailed or Throttled, with an audit event where the key is known."""
        kid, holder = Kid(""), None
        try:
            if request.grant_type != GRANT_TYPE:
                raise InvalidInput("grant_type", f"grant_type must be {GRANT_TYPE}")
            kid = assertion.unverified_kid(request.assertion)
            verified, account, limits = await self._verify(request.assertion, kid, assertion.LOGIN_TYP, self._login_url, address)
            holder = verified.account
            session_key = parse_request(request.certificate_request)
            if signing.thumbprint(session_key) != verified.jkt:
                raise InvalidToken("the certificate request is for another key than the assertion names")
            self._throttle.count_account(verified.account, account.name, time.monotonic(), limits)
            return await self._begin(verified, session_key, request.client, address)
        except StoreUnavailable as error:
            logger.warning("login not answered: %s, from %s", error.code, address)
            raise
        except KlinketError as error:
            self._throttle.failed(error, address, kid, time.monotonic())
            code = "wrong-signature" if isinstance(error.__cause__, WrongSignature) else error.code
            logger.warning("login refused: %s, key %s, from %s", code, kid[:64] or "-", address)
            limit = error.limit if isinstance(error, Throttled) else ""
            if holder is not None and limit:
                self._refused.add(holder, limit)
            if not kid or not self._throttle.may_record(kid, time.monotonic()):
                raise
            if isinstance(error, ServiceKeyUnknown):
                await self.unproven.add(kid, code, address)
            else:
                await self._store.write(lambda tx: sessions.record_refusal(tx, kid, code, address, limit))
            raise

    async def end(self, request: EndRequest, address: str) -> None:
        """End the session whose key an end assertion names; the answer is the same whatever happens."""
        kid = Kid("")
        try:
            kid = assertion.unverified_kid(request.assertion)
            verified, _, _ = await self._verify(request.assertion, kid, assertion.END_TYP, self._logout_url, address)
        except AuthenticationFailed as error:
            self._throttle.failed(error, address, kid, time.monotonic())
            logger.warning("logout refused: %s, from %s", error.code, address)
            return

        def end(tx: Transaction) -> None:
            for row in tx.sessions.find(jkt=verified.jkt, ended_at_ms=None):
                key = tx.service_keys.get(row.service_key_id)
                if key is not None and key.kid == verified.kid:
                    # Its channel is gone, or in other hands: its flows may live.
                    sessions.end(tx, SessionId(row.id), sessions.LOGOUT, address, cut=True)

        await self._store.write(end)

    async def _verify(
        self, token: str, kid: Kid, typ: str, audience: str, address: str
    ) -> tuple[Assertion, ServiceAccountRow, AccountLimits]:
        def look(tx: Transaction) -> tuple[ServiceKeyRow, ServiceAccountRow, AccountLimits]:
            try:
                key, account = sessions.key_for_login(tx, kid)
            except ServiceKeyUnknown:
                tx.service_accounts.get(0)  # as much is looked up as for a key that is there
                account_limits.of(tx, 0)
                raise
            return key, account, account_limits.of(tx, account.id)

        try:
            key, account, limits = await self._store.read(look)
        except ServiceKeyUnknown:
            try:
                decoy = signing.public_key_from_pem(self._decoy)
                assertion.verify_assertion(token, decoy, kid=kid, account=ServiceAccountUuid(""), audience="", now=0.0, typ=typ)
            except AuthenticationFailed:
                pass
            raise
        try:
            verified = assertion.verify_assertion(
                token,
                signing.public_key_from_pem(key.public_key),
                kid=kid,
                account=ServiceAccountUuid(account.uuid),
                audience=audience,
                now=self._clock(),
                typ=typ,
            )
        except AuthenticationFailed as error:
            if key.is_canary:
                await self._alarm(key, account, address, typ, signed=isinstance(error, AssertionStale))
                raise ServiceKeyUnknown(sessions.UNKNOWN_KEY) from None
            if isinstance(error, WrongSignature):
                # Whoever does not hold the key learns nothing of it, not even that it exists; the audit does.
                raise ServiceKeyUnknown(sessions.UNKNOWN_KEY) from error
            raise
        if key.is_canary:
            await self._alarm(key, account, address, typ, signed=True)
        sessions.check_usable(key, round(self._clock() * 1000))
        return verified, account, limits

    async def _alarm(self, key: ServiceKeyRow, account: ServiceAccountRow, address: str, typ: str, *, signed: bool) -> None:
        """Write the alarm of a canary key before anything is answered, and whatever else the address has tried."""
        logger.error("a canary key was tried: %s, from %s", key.kid, address)
        attempt = "logout" if typ == assertion.END_TYP else "login"
        self._count_alarm(attempt)
        if self._throttle.may_record(f"canary {key.kid}", time.monotonic()):
            await self._store.write(lambda tx: key_seats.alarm(tx, key, account, address, attempt=attempt, signed=signed))

    async def _begin(self, verified: Assertion, session_key: signing.PublicKey, facts: ClientFacts, address: str) -> LoginAnswer:
        session = SessionId(signing.base64url(self._entropy(16)))
        attached = set(self._attached())

        def begin(tx: Transaction) -> tuple[ServiceKeyRow, ServiceAccountRow]:
            head_guard.check(tx)
            _, key, account = sessions.begin(
                tx,
                verified,
                session,
                hostname=facts.hostname,
                client_version=facts.version,
                address=address,
                attached=attached,
            )
            key_hygiene.used(tx, key, hostname=facts.hostname, address=address, client_version=facts.version)
            return key, account

        key, account = await self._store.write(begin)
        self._began(session)
        now = self._clock()
        principal = Principal(ServiceAccountUuid(account.uuid), Kid(key.kid), session)
        expires_at = None if key.expires_at_ms is None else key.expires_at_ms / 1000
        issued = issue(self._trust, principal, session_key, expires_at, now)
        logger.info("session %s began: account %s, key %s, from %s", session, account.uuid, key.kid, address)
        return LoginAnswer(
            session=session,
            network=self._trust.network,
            certificate=issued.certificate,
            access_token=issued.access_token,
            expires_at_ms=round(issued.expires_at * 1000),
            time_ms=round(now * 1000),
        )
