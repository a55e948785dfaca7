"""Connectors enrol a key of their own making with their tokens (security.md 11)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from klinket.controller import head_guard
from klinket.controller.app import connectors
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.rows import ConnectorRow
from klinket.controller.authority import AuthorityPurpose, parse_request
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.errors import ConnectorTokensDead, EnrolledElsewhere, Throttled
from klinket.domain.identifiers import ConnectorId
from klinket.domain.token_buckets import TokenBuckets
from klinket.domain.token_text import token_hash
from klinket.net.sources import source_of
from klinket.wire import access_token, signing
from klinket.wire.identity import ConnectorIdentity

logger = logging.getLogger(__name__)

#: Seconds a connector's certificate lives; renewed at half of that with the same key.
CONNECTOR_CERTIFICATE_SECONDS = 24 * 3600.0
#: Enrolments of one address with tokens that are not valid, at once, and how fast they are forgiven a second.
FAILED_ENROLMENTS = 20
FAILED_ENROLMENTS_PER_SECOND = 0.2
#: Enrolments of one connector from one address: each is written and signed.
ENROLMENT_BURST = 10
ENROLMENTS_PER_SECOND = 0.2
#: Refused enrolments of one connector that are written to the audit at once, and a second after that.
RECORD_BURST = 20
RECORDS_PER_SECOND = 0.1


class EnrolmentRequest(msgspec.Struct, frozen=True):
    """Body of an enrolment. `certificate_request`: PKCS#10, PEM, for the connector's key."""

    access_token: str
    refresh_token: str
    certificate_request: str
    version: str = ""
    hostname: str = ""


class EnrolmentAnswer(msgspec.Struct, frozen=True):
    """Body of the answer."""

    connector: int
    name: str
    network: str
    certificate: str
    access_token: str
    expires_at_ms: int
    time_ms: int


class Enrolments:
    """Answers enrolments."""

    def __init__(self, store: Store, trust: Trust, clock: Callable[[], float]) -> None:
        self._store = store
        self._trust = trust
        self._clock = clock
        self._failures = TokenBuckets(FAILED_ENROLMENTS, FAILED_ENROLMENTS_PER_SECOND)
        self._enrolments = TokenBuckets(ENROLMENT_BURST, ENROLMENTS_PER_SECOND)
        self._records = TokenBuckets(RECORD_BURST, RECORDS_PER_SECOND)

    async def enrol(self, request: EnrolmentRequest, address: str) -> EnrolmentAnswer:
        """Return certificate and access token of a connector.

        Raises ConnectorTokensDead, EnrolledElsewhere, Throttled, ControllerBehind. Tokens are looked up before anything is
        written: who has none takes no turn of the writer, and keeps nobody out who has, from whatever address.
        """
        key = parse_request(request.certificate_request)
        jkt = signing.thumbprint(key)
        await self.tokens_valid(request.access_token, request.refresh_token, address)

        def enrol(tx: Transaction) -> ConnectorRow:
            head_guard.check(tx)
            row = connectors.by_tokens(tx, request.access_token, request.refresh_token)
            connectors.enrol(tx, row, jkt, address)
            return row

        self._count(request.access_token, address)
        try:
            row = await self._store.write(enrol)
        except EnrolledElsewhere as error:
            logger.error("ALARM %s: %s, from %s", error.code, error.message, address)
            if not self._records.take(token_hash(request.access_token), time.monotonic()):
                await self._store.write(
                    lambda tx: connectors.record_refused_enrolment(
                        tx, connectors.by_tokens(tx, request.access_token, request.refresh_token), address
                    )
                )
            raise
        certificate, token, expires_at = issue(self._trust, ConnectorId(row.id), key, self._clock())
        return EnrolmentAnswer(
            connector=row.id,
            name=row.name,
            network=self._trust.network,
            certificate=certificate,
            access_token=token,
            expires_at_ms=round(expires_at * 1000),
            time_ms=round(self._clock() * 1000),
        )

    async def tokens_valid(self, access: str, refresh: str, address: str) -> None:
        """Raise ConnectorTokensDead unless the pair is valid, or Throttled for an address that had too many that were not."""
        try:
            await self._store.read(lambda tx: connectors.by_tokens(tx, access, refresh))
        except ConnectorTokensDead as error:
            if wait := self._failures.take(source_of(address), time.monotonic()):
                raise Throttled.again_in(
                    wait, f"too many connector tokens from {address} that are not valid: {FAILED_ENROLMENTS} are allowed"
                ) from error
            raise

    def _count(self, access: str, address: str) -> None:
        """Count an enrolment with valid tokens; raises Throttled. By address too: a thief takes nothing from who was robbed."""
        if wait := self._enrolments.take(f"{source_of(address)} {token_hash(access)}", time.monotonic()):
            raise Throttled.again_in(
                wait, f"this connector enrols too often: {ENROLMENT_BURST} at once and {ENROLMENTS_PER_SECOND:g} a second"
            )


def issue(trust: Trust, connector: ConnectorId, key: signing.PublicKey, now: float) -> tuple[str, str, float]:
    """Return (certificate, access token, end in seconds since the epoch) for a connector's key."""
    identity = ConnectorIdentity(trust.network, connector)
    lifetime = CONNECTOR_CERTIFICATE_SECONDS
    certificate = trust.authorities[AuthorityPurpose.CONNECTOR].certify(key, identity.uri, now=now, lifetime=lifetime)
    token = access_token.issue(trust.signers[KeyPurpose.ACCESS], identity, signing.thumbprint(key), now=now, lifetime=lifetime)
    return certificate, token, now + lifetime
