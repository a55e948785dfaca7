"""Sinks: where audit and network events are delivered (webhook, syslog, e-mail, files), and what each kind needs to know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from klinket.domain.errors import InvalidInput

#: Characters of one setting, and of an authority (PEM).
MAX_SETTING_CHARS, MAX_AUTHORITY_CHARS = 500, 65_536
MAX_RECIPIENTS = 20
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}", re.ASCII)
_EMAIL = re.compile(r"[^\s@<>,;:\"\\()\x00-\x1f]{1,64}@[A-Za-z0-9.-]{1,253}", re.ASCII)


class SinkKind(Enum):
    """How events get there. FILE and STDOUT are set up on the controller's own command line only."""

    WEBHOOK = "webhook"
    SYSLOG = "syslog"
    SMTP = "smtp"
    FILE = "file"
    STDOUT = "stdout"


class Stream(Enum):
    """What a sink gets. WARNINGS are the audit events that warn, for example of keys about to expire."""

    AUDIT = "audit"
    NETWORK = "network"
    WARNINGS = "warnings"


def checked_settings(kind: SinkKind, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a sink that others make over the API; raises InvalidInput that names the setting."""
    match kind:
        case SinkKind.WEBHOOK:
            return {"url": _https_url(given.get("url")), "authority": _authority(given.get("authority"))}
        case SinkKind.SYSLOG:
            return {"address": _address(given.get("address")), "authority": _authority(given.get("authority"))}
        case SinkKind.SMTP:
            recipients = given.get("recipients") or []
            if not 1 <= len(recipients) <= MAX_RECIPIENTS:
                raise InvalidInput("recipients", f"1 to {MAX_RECIPIENTS} recipients are needed")
            return {
                "address": _address(given.get("address")),
                "sender": _email("sender", given.get("sender")),
                "recipients": [_email("recipients", one) for one in recipients],
                "user": _text("user", given.get("user")) if given.get("user") else None,
                "authority": _authority(given.get("authority")),
            }
        case _:
            raise InvalidInput("kind", f"a sink of kind {kind.value} is set up with options of `klinket controller`")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(name, f"{name} is needed")
    if len(value) > MAX_SETTING_CHARS or not value.isprintable():
        raise InvalidInput(name, f"{name} is longer than {MAX_SETTING_CHARS} characters, or holds control characters")
    return value.strip()


def _https_url(value: object) -> str:
    text = _text("url", value)
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError as error:
        raise InvalidInput("url", f"url is not a URL: {error}") from error
    if url.scheme != "https" or not url.hostname or url.username is not None or url.fragment:
        raise InvalidInput("url", "url must be https://HOST[:PORT]/PATH, without a name or password in it")
    return text


def _address(value: object) -> str:
    text = _text("address", value)
    if not _ADDRESS.fullmatch(text) or not 1 <= int(text.rpartition(":")[2]) <= 65_535:
        raise InvalidInput("address", "address must be HOST:PORT", hint="for example logs.example.com:6514")
    return text


def _email(name: str, value: object) -> str:
    text = _text(name, value)
    if not _EMAIL.fullmatch(text):
        raise InvalidInput(name, f"{name}: not an e-mail address: {text[:80]!r}")
    return text


def _authority(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or "BEGIN CERTIFICATE" not in value or len(value) > MAX_AUTHORITY_CHARS:
        raise InvalidInput("authority", "authority must be certificates in PEM")
    if "PRIVATE KEY" in value:
        raise InvalidInput("authority", "authority holds a private key", hint="give the certificates alone")
    return value
