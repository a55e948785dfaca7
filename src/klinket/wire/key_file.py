"""The service key file (facts §1): a JSON document that is shown once."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from klinket.domain.errors import InvalidToken, ServiceKeyInvalid
from klinket.wire import signing
from klinket.wire.paths import REVOKE_PATH

LOGIN_PATH = "/api/v4/headless/login"
VERSION = "1"
#: Bytes of a key file that are read at the most.
MAX_KEY_FILE_BYTES = 65_536
WHOLE = "store the whole file, from { to }"

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_KEY_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)(:([1-9][0-9]{0,4}))?", re.ASCII)
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+/?", re.ASCII)
_BASE64 = re.compile(rb"[A-Za-z0-9+/=\s]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What a key file says. `network`: bare host, or host:port; `login_path`: one absolute path."""

    network: str
    service_account_id: str
    key_id: str
    private_key_pem: str = field(repr=False)
    expires_at: str | None = None
    login_path: str = LOGIN_PATH
    controller_ca: str | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """Return the controller's host, without brackets."""
        return self.network.rpartition(":")[0].strip("[]") if self.port_given else self.network.strip("[]")

    @property
    def port(self) -> int:
        """Return the controller's port, 443 when none is given."""
        return int(self.network.rpartition(":")[2]) if self.port_given else 443

    @property
    def port_given(self) -> bool:
        """Return whether `network` names a port."""
        match = _HOST.fullmatch(self.network)
        return match is not None and match[3] is not None

    @property
    def login_url(self) -> str:
        """Return the URL the login assertion is made for (`aud`)."""
        return f"https://{self.network}{self.login_path}"

    @property
    def revoke_url(self) -> str:
        """Return the URL the assertion that ends this key is made for (`aud`)."""
        return f"https://{self.network}{REVOKE_PATH}"

    @property
    def private_key(self) -> signing.PrivateKey:
        """Return the parsed private key; raises ServiceKeyInvalid."""
        try:
            return signing.private_key_from_pem(self.private_key_pem)
        except InvalidToken as error:
            raise ServiceKeyInvalid(f"key file, private_key: {error.message}") from None

    def to_json(self) -> str:
        """Return the document with the fields and order of facts §1."""
        document: dict[str, Any] = {
            "version": VERSION,
            "network": self.network,
            "service_account_id": self.service_account_id,
            "private_key": self.private_key_pem,
            "key_id": self.key_id,
            "expires_at": self.expires_at,
            "login_path": self.login_path,
        }
        if self.controller_ca is not None:
            document["controller_ca"] = self.controller_ca
        return json.dumps(document, indent=2)


def parse_key_file(content: str | bytes) -> KeyFile:
    """Return the key file in `content`; raises ServiceKeyInvalid that names the field and never holds the key.

    Accepted as well: a byte order mark, a literal `\\n` in place of newlines (keys pasted on one line), base64 of the whole.
    """
    document = _document(content)
    network = _text(document, "network")
    host = _HOST.fullmatch(network)
    if host is None or (host[4] is not None and int(host[4]) > 65_535):
        raise ServiceKeyInvalid("key file, network: not a host or host:port", hint="for example acme.example.com:8443")
    account = _text(document, "service_account_id").lower()
    if not _UUID.fullmatch(account):
        raise ServiceKeyInvalid("key file, service_account_id: not a UUID")
    key_id = _text(document, "key_id")
    if not _KEY_ID.fullmatch(key_id):
        raise ServiceKeyInvalid("key file, key_id: not the id of a key")
    pem = _text(document, "private_key").replace("\\n", "\n").strip() + "\n"
    path = document.get("login_path") or LOGIN_PATH
    if not isinstance(path, str) or len(path) > 256 or not _PATH.fullmatch(path) or "/.." in path:
        raise ServiceKeyInvalid("key file, login_path: not an absolute path")
    authority = document.get("controller_ca")
    if authority is not None and not (isinstance(authority, str) and "BEGIN CERTIFICATE" in authority):
        raise ServiceKeyInvalid("key file, controller_ca: not a certificate in PEM")
    key_file = KeyFile(
        network.lower(),
        account,
        key_id,
        pem,
        _expiry(document.get("expires_at")),
        path,
        authority.replace("\\n", "\n") if authority else None,
    )
    _ = key_file.private_key  # a key that cannot be used is refused here, by name
    return key_file


def _document(content: str | bytes) -> dict[str, Any]:
    try:
        raw = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    except UnicodeEncodeError:
        raise ServiceKeyInvalid("key file: not JSON", hint=WHOLE) from None
    if len(raw) > MAX_KEY_FILE_BYTES:
        raise ServiceKeyInvalid(f"key file: larger than {MAX_KEY_FILE_BYTES} bytes")
    raw = raw.removeprefix(b"\xef\xbb\xbf").strip()
    if not raw:
        raise ServiceKeyInvalid("key file: it is empty", hint="is the secret set in this job's environment?")
    if not raw.startswith(b"{") and _BASE64.fullmatch(raw):
        try:
            raw = base64.b64decode(b"".join(raw.split()), validate=True).strip()
        except binascii.Error:
            told = "key file: neither JSON nor base64 of JSON; it may be truncated"
            raise ServiceKeyInvalid(told, hint=WHOLE) from None
    try:
        document = json.loads(raw.decode("utf-8"), strict=False)  # raw newlines inside the PEM text are accepted
    except (ValueError, RecursionError):
        raise ServiceKeyInvalid("key file: not JSON; it may be truncated", hint=WHOLE) from None
    if not isinstance(document, dict):
        raise ServiceKeyInvalid("key file: not a JSON object")
    return document


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ServiceKeyInvalid(f"key file, {name}: missing or empty")
    return value.strip()


def _expiry(value: object) -> str | None:
    if value is None or value == "":
        return None
    try:
        if not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is None:
            raise ValueError
    except ValueError:
        raise ServiceKeyInvalid("key file, expires_at: not ISO 8601 with an offset") from None
    return value
