"""Connectors enrol a key of their own making with their tokens (security.md 11)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from klinket.controller import head_guard
from klinket.controller.app import connectors
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.rows import ConnectorRow
from klinket.controller.authority import AuthorityPurpose, parse_request
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.errors import EnrolledElsewhere
from klinket.domain.identifiers import ConnectorId
from klinket.wire import access_token, signing
from klinket.wire.identity import ConnectorIdentity

logger = logging.getLogger(__name__)

#: Seconds a connector's certificate lives; renewed at half of that with the same key.
CONNECTOR_CERTIFICATE_SECONDS = 24 * 3600.0


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

    async def enrol(self, request: EnrolmentRequest, address: str) -> EnrolmentAnswer:
        """Return certificate and access token of a connector; raises ConnectorTokensDead, EnrolledElsewhere, ControllerBehind."""
        key = parse_request(request.certificate_request)
        jkt = signing.thumbprint(key)

        def enrol(tx: Transaction) -> ConnectorRow:
            head_guard.check(tx)
            row = connectors.by_tokens(tx, request.access_token, request.refresh_token)
            connectors.enrol(tx, row, jkt, address)
            return row

        try:
            row = await self._store.write(enrol)
        except EnrolledElsewhere as error:
            logger.error("ALARM %s: %s, from %s", error.code, error.message, address)
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

    async def tokens_valid(self, access: str, refresh: str) -> None:
        """Raise ConnectorTokensDead unless the pair is valid."""
        await self._store.read(lambda tx: connectors.by_tokens(tx, access, refresh))


def issue(trust: Trust, connector: ConnectorId, key: signing.PublicKey, now: float) -> tuple[str, str, float]:
    """Return (certificate, access token, end in seconds since the epoch) for a connector's key."""
    identity = ConnectorIdentity(trust.network, connector)
    lifetime = CONNECTOR_CERTIFICATE_SECONDS
    certificate = trust.authorities[AuthorityPurpose.CONNECTOR].certify(key, identity.uri, now=now, lifetime=lifetime)
    token = access_token.issue(trust.signers[KeyPurpose.ACCESS], identity, signing.thumbprint(key), now=now, lifetime=lifetime)
    return certificate, token, now + lifetime
