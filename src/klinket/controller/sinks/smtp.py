"""E-mail: one message for a batch, over STARTTLS (or TLS from the first byte on port 465), never in the clear."""

from __future__ import annotations

import io
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
#: Bytes of all answers of one exchange.
MAX_ANSWERS_BYTES = 65_536
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
    detail, source = content["detail"], content.get("source")
    if content["action"] == "warn" and "withinDays" in detail:
        return f"{name}{of} expires within {detail['withinDays']} days, at {detail.get('expiresAt')}"
    why = detail.get("alarm") or detail.get("code")
    word = "alarm" if "alarm" in detail else content["action"]
    return f"{word}{f' {why}' if why else ''}: {name}{of}{f', from {source}' if source else ''}"


class _Counted(io.BufferedIOBase):
    """Lines of a server, up to a total of bytes."""

    def __init__(self, file: io.BufferedIOBase, already: int) -> None:
        super().__init__()
        self._file = file
        self.read_bytes = already

    def readline(self, size: int | None = -1, /) -> bytes:
        line = self._file.readline(size)
        self.read_bytes += len(line)
        if self.read_bytes > MAX_ANSWERS_BYTES:
            raise OSError(f"the server's answers are longer than {MAX_ANSWERS_BYTES} bytes")
        return line

    def close(self) -> None:
        self._file.close()
        super().close()


class _Dialled(smtplib.SMTP):
    """An SMTP client on a socket that was dialled already; all that it reads is counted."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        super().__init__()
        self._host = host  # what starttls() checks the certificate for
        self.sock = sock
        self._lines: _Counted | None = None
        code, text = self.getreply()
        if code != 220:
            self.close()
            raise smtplib.SMTPConnectError(code, text)

    def getreply(self) -> tuple[int, bytes]:
        """Return a reply; raises SMTPException, also when all answers together are too long."""
        if self.file is None and self.sock is not None:  # at the beginning, and after STARTTLS
            already = 0 if self._lines is None else self._lines.read_bytes
            self._lines = self.file = _Counted(self.sock.makefile("rb"), already)
        return super().getreply()


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
        try:
            if not secure:
                client.starttls(context=tls_context(settings.get("authority")))
            if settings.get("user"):
                client.login(settings["user"], secret.decode())
            client.send_message(composed(batch))
            client.quit()
        finally:
            client.close()  # after STARTTLS `sock` is detached
