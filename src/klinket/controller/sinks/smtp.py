"""E-mail: one message for a batch, over STARTTLS (or TLS from the first byte on port 465), never in the clear."""

from __future__ import annotations

import ipaddress
import json
import smtplib
import socket
from collections.abc import Sequence
from email.message import EmailMessage
from typing import Any

from klinket.controller.app.sinks import Batch
from klinket.net.outbound import bounded, dial, dial_tls, tls_context
from klinket.net.sockets import HostPort

SMTPS_PORT = 465
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def composed(batch: Batch) -> EmailMessage:
    """Return the message: a line in words for each event, then the events as JSON."""
    lines = [in_words(event) for event in batch.events]
    message = EmailMessage()
    message["From"] = batch.sink.settings["sender"]
    message["To"] = ", ".join(batch.sink.settings["recipients"])
    message["Subject"] = f"klinket: {lines[0]}" if len(lines) == 1 else f"klinket: {len(lines)} events"
    details = json.dumps(batch.events, indent=2)
    message.set_content("\n".join(lines) + f"\n\nAs exported:\n\n{details}\n")
    return message


def in_words(event: dict[str, Any]) -> str:
    """Return an event as one line of printable characters."""
    content = event["event"]
    if event["event_type"] != "audit_log":
        return f"{content['event_type']}"
    target = content["targets"][0] if content["targets"] else {}
    name = f"{target.get('type', '')} {target.get('name', '')!r}".strip()
    account = (target.get("serviceAccount") or {}).get("name")
    of = f" of {account!r}" if account else ""
    if content["detail"].get("test"):
        return f"a test of {name}: it works"
    if content["action"] == "warn":
        return f"{name}{of} expires within {content['detail'].get('withinDays')} days, at {content['detail'].get('expiresAt')}"
    return f"{content['action']} {name}{of}"


class _Dialled(smtplib.SMTP):
    """An SMTP client on a socket that was dialled already."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        super().__init__()
        self._host = host  # what starttls() checks the certificate for
        self.sock = sock
        code, text = self.getreply()
        if code != 220:
            self.close()
            raise smtplib.SMTPConnectError(code, text)


def deliver(batch: Batch, secret: bytes, allowed: Sequence[_Network]) -> None:
    """Send a batch; `secret` is the password. Raises OSError, SMTPException or OutboundRefused."""
    settings = batch.sink.settings
    where = HostPort.parse(settings["address"])
    secure = where.port == SMTPS_PORT
    sock = (
        dial_tls(where.host, where.port, allowed, settings.get("authority")) if secure else dial(where.host, where.port, allowed)
    )
    with sock, bounded(sock):
        client = _Dialled(sock, where.host)
        if not secure:
            client.starttls(context=tls_context(settings.get("authority")))
        if settings.get("user"):
            client.login(settings["user"], secret.decode())
        client.send_message(composed(batch))
        client.quit()
