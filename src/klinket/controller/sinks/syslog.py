"""Syslog: RFC 5424 messages over TLS with octet counting (RFC 5425). The message is the event as JSON, in one line.

Facility 13 (log audit) for audit events and 16 (local0) for network events; severity: alert for alarms, warning for what was
refused, cut or is warned of, else notice.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Sequence
from typing import Any

from klinket.controller.app.sinks import Batch
from klinket.net.outbound import bounded, dial_tls
from klinket.net.sockets import HostPort

_AUDIT, _LOCAL0 = 13, 16
_ALERT, _WARNING, _NOTICE = 1, 4, 5
_LOUD = {"refuse", "revoke", "cut", "warn", "denied_access", "failed_to_connect"}
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def message(event: dict[str, Any], hostname: str) -> bytes:
    """Return one frame: MSG-LEN SP SYSLOG-MSG."""
    content = event["event"]
    audit = event["event_type"] == "audit_log"
    word = content["action"] if audit else content["event_type"]
    alarms = audit and (word == "alarm" or "alarm" in content["detail"])
    severity = _ALERT if alarms else _WARNING if word in _LOUD else _NOTICE
    priority = (_AUDIT if audit else _LOCAL0) * 8 + severity
    when = content["time"] if audit else "-"
    head = f"<{priority}>1 {when} {_printable(hostname, 255)} klinket - {_printable(word, 32)} - \ufeff"
    text = (head + json.dumps(content, separators=(",", ":"), ensure_ascii=True)).encode()
    return str(len(text)).encode() + b" " + text


def _printable(text: str, limit: int) -> str:
    return "".join(char for char in text if "!" <= char <= "~")[:limit] or "-"


def deliver(batch: Batch, secret: bytes, allowed: Sequence[_Network]) -> None:
    """Send a batch; raises OSError or OutboundRefused. `secret` is not used: the server's certificate is the trust."""
    del secret
    where = HostPort.parse(batch.sink.settings["address"])
    frames = b"".join(message(event, socket.gethostname()) for event in batch.events)
    with dial_tls(where.host, where.port, allowed, batch.sink.settings.get("authority")) as connection, bounded(connection):
        connection.sendall(frames)
        # A TLS close that the server answers says that it has read everything; syslog itself never answers.
        connection.unwrap()
