"""One JSON request to the controller with the standard library, in a thread: no redirects, no proxies, bounded answers."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from klinket.domain.errors import ControllerUnreachable, NotTheController
from klinket.net import sockets
from klinket.net.tls import TLS_TOO_OLD, is_too_old

#: Seconds for each step of a request, and bytes of an answer.
TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 1 << 20
#: X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH: a certificate to trust, of somebody else.
OTHER_NAME = (62, 64)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and JSON object of an answer; `body` is empty when it was not a JSON object."""

    status: int
    body: dict[str, Any]

    def text(self, name: str) -> str:
        """Return a text of the body, or ""."""
        value = self.body.get(name)
        return value if isinstance(value, str) else ""

    @property
    def retry_after(self) -> float | None:
        """Return the seconds to wait that the body tells, if it does."""
        wait = self.body.get("retry_after")
        return float(wait) if isinstance(wait, int | float) else None


class _Connection(http.client.HTTPSConnection):
    """Dials with sockets that the capture of this machine lets pass."""

    def __init__(self, netloc: str, *, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(netloc, timeout=timeout, context=context)
        self._create_connection = sockets.create_connection


async def post(
    url: str, path: str, body: Mapping[str, object], context: ssl.SSLContext, timeout: float = TIMEOUT_SECONDS
) -> Answer:
    """POST JSON to `path` of the controller's https `url`; raises ControllerUnreachable.

    `timeout`: seconds for each step (connecting, sending, each part of the answer).
    """
    return await asyncio.to_thread(_post, urlsplit(url).netloc, path, json.dumps(body).encode(), context, timeout)


def _post(netloc: str, path: str, body: bytes, context: ssl.SSLContext, timeout: float) -> Answer:
    connection = _Connection(netloc, timeout=timeout, context=context)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", "Accept": "application/json"})
        response = connection.getresponse()
        content = response.read(MAX_ANSWER_BYTES)
    except ssl.SSLCertVerificationError as error:
        hint = "the key or tokens file must hold the controller's own authority (controller_ca), if it has one"
        if error.verify_code in OTHER_NAME:
            hint = "the certificate is for another name: use the one the controller has as --public-url"
        raise NotTheController(f"{netloc} does not prove who it is: {error.verify_message}", hint=hint) from error
    except ssl.SSLError as error:
        hint = TLS_TOO_OLD if is_too_old(error) else "is this the port of `klinket controller`, and not one of plain HTTP?"
        raise NotTheController(f"{netloc} does not speak TLS as a controller does: {error.reason or error}", hint=hint) from error
    except (OSError, http.client.HTTPException) as error:
        raise ControllerUnreachable(f"cannot reach the controller at {netloc}: {error}") from error
    finally:
        connection.close()
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        parsed = None
    if 300 <= response.status < 400:
        raise ControllerUnreachable(
            f"{netloc} redirects elsewhere, which is not followed", hint="use the controller's own address"
        )
    return Answer(response.status, parsed if isinstance(parsed, dict) else {})
