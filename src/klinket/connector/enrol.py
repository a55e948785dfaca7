"""Enrolment: tokens and a certificate request for this connector's key, against a certificate and an access token."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field

from klinket.connector.config import ConnectorConfig
from klinket.domain.errors import (
    AuthenticationFailed,
    ConnectorTokensDead,
    ControllerUnreachable,
    EnrolledElsewhere,
    KlinketError,
    Throttled,
)
from klinket.net.certificate_request import certificate_request
from klinket.net.request import Answer, post
from klinket.wire.paths import ENROL_PATH
from klinket.wire.signing import PrivateKey
from klinket.wire.version import CONNECTOR_VERSION


class EnrolmentRefused(AuthenticationFailed):
    """The controller does not take what this connector sends; trying again changes nothing."""

    code = "connector-refused"
    default_hint = "compare the connector's version with the controller's, and look at the controller's log"


#: What ends a connector for good. Any other word may pass: an overloaded controller, one without its database, a gateway's page.
_BY_CODE: dict[str, type[AuthenticationFailed]] = {
    kind.code: kind for kind in (ConnectorTokensDead, EnrolledElsewhere)
} | dict.fromkeys(("connector-too-old", "invalid-input"), EnrolmentRefused)
FINAL = (ConnectorTokensDead, EnrolledElsewhere, EnrolmentRefused)


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
    """Return credentials; raises AuthenticationFailed (ConnectorTokensDead, ...), Throttled or ControllerUnreachable."""
    body = {
        "access_token": config.access_token,
        "refresh_token": config.refresh_token,
        "certificate_request": certificate_request(key),
        "version": CONNECTOR_VERSION,
        "hostname": socket.gethostname(),
    }
    answer = await post(config.controller, ENROL_PATH, body, context)
    if answer.status != 200:
        raise _told(answer)
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


def _told(answer: Answer) -> KlinketError:
    """Return what an answer that is no enrolment says."""
    code, message, hint = answer.text("code"), answer.text("message"), answer.text("hint") or None
    if answer.status == 410 or code == ConnectorTokensDead.code:
        return ConnectorTokensDead(message or "the controller says that these tokens are dead", hint=hint)
    if answer.status < 500 and code in _BY_CODE:
        return _BY_CODE[code](message or f"the controller answered {answer.status}", hint=hint)
    if code == Throttled.code:
        return Throttled(message, hint=hint, retry_after=answer.retry_after)
    if not code:
        return ControllerUnreachable(
            f"something answered {answer.status}, and not as a klinket controller does", hint="check the controller's URL"
        )
    return ControllerUnreachable(
        message or f"the controller cannot serve this now ({code})", hint=hint, retry_after=answer.retry_after
    )
