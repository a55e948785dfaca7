"""Enrolment: tokens and a certificate request for this connector's key, against a certificate and an access token."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field

from klinket.connector.config import ConnectorConfig
from klinket.domain.errors import AuthenticationFailed, ConnectorTokensDead, ControllerUnreachable
from klinket.net.certificate_request import certificate_request
from klinket.net.request import post
from klinket.wire.paths import ENROL_PATH
from klinket.wire.signing import PrivateKey
from klinket.wire.version import CONNECTOR_VERSION


class EnrolmentRefused(AuthenticationFailed):
    """The controller does not take this connector's key with these tokens."""

    code = "connector-enrolled-elsewhere"


@dataclass(slots=True)
class Credentials:
    """What the connector holds for a while; renewed with the same key."""

    connector: int
    network: str
    certificate: str
    access_token: str = field(repr=False)
    expires_at_ms: int
    time_ms: int


async def enrol(config: ConnectorConfig, key: PrivateKey, context: ssl.SSLContext) -> Credentials:
    """Return credentials; raises ConnectorTokensDead, EnrolmentRefused or ControllerUnreachable."""
    body = {
        "access_token": config.access_token,
        "refresh_token": config.refresh_token,
        "certificate_request": certificate_request(key),
        "version": CONNECTOR_VERSION,
        "hostname": socket.gethostname(),
    }
    answer = await post(config.controller, ENROL_PATH, body, context)
    if answer.status == 410:
        raise ConnectorTokensDead(answer.text("message") or "the controller says that these tokens are dead")
    if answer.status in (400, 401, 403, 409):
        raise EnrolmentRefused(answer.text("message") or f"the controller answered {answer.status}", hint=answer.text("hint"))
    try:
        return Credentials(
            connector=int(answer.body["connector"]),
            network=str(answer.body["network"]),
            certificate=str(answer.body["certificate"]),
            access_token=str(answer.body["access_token"]),
            expires_at_ms=int(answer.body["expires_at_ms"]),
            time_ms=int(answer.body["time_ms"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ControllerUnreachable(f"the controller's answer ({answer.status}) is not understood") from error
