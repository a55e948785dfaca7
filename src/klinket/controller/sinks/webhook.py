"""Webhook: a signed HTTPS POST of JSON, no redirects, bounded answer.

The receiver checks `Klinket-Signature: v1=HEX`, the HMAC-SHA256 over `TIMESTAMP.BODY` under the shared secret, and refuses a
`Klinket-Timestamp` that is old. A delivery is repeated until it was answered with 2xx: events may come twice, never out of order.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ipaddress
import json
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from klinket.controller.app.sinks import Batch
from klinket.net.outbound import bounded, dial_tls
from klinket.wire.version import PRODUCT_VERSION

#: Bytes of an answer that are read.
MAX_ANSWER_BYTES = 16_384
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return the value of Klinket-Signature."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def deliver(batch: Batch, secret: bytes, allowed: Sequence[_Network]) -> None:
    """Post a batch; raises OSError, HTTPException or OutboundRefused."""
    url = urlsplit(batch.sink.settings["url"])
    body = json.dumps({"events": batch.events}, separators=(",", ":")).encode()
    timestamp = str(int(time.time()))
    connection = http.client.HTTPSConnection(url.hostname or "", url.port or 443)
    connection.sock = dial_tls(url.hostname or "", url.port or 443, allowed, batch.sink.settings.get("authority"))
    try:
        with bounded(connection.sock):
            connection.request(
                "POST",
                (url.path or "/") + (f"?{url.query}" if url.query else ""),
                body,
                {
                    "Content-Type": "application/json",
                    "User-Agent": f"klinket/{PRODUCT_VERSION}",
                    "Klinket-Delivery": f"{batch.sink.id}-{batch.audit_position}-{batch.flow_position}",
                    "Klinket-Timestamp": timestamp,
                    "Klinket-Signature": signature(secret, timestamp, body),
                },
            )
            answer = connection.getresponse()
            answer.read(MAX_ANSWER_BYTES)
            if not 200 <= answer.status < 300:
                raise http.client.HTTPException(f"the receiver answered {answer.status}")
    finally:
        connection.close()
