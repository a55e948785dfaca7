"""Text secrets: a prefix that scanners find, random letters and digits, and a checksum that catches typing errors.

Shape: `PREFIX` + 41 base62 digits of 30 random bytes + 6 base62 digits of the CRC-32 of all before.
"""

from __future__ import annotations

import hashlib
import zlib

from klinket.domain.errors import InvalidToken

RANDOM_BYTES = 30
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS = 41  # 62**41 > 256**30
_CHECK_CHARS = 6

API_TOKEN = "kl_api_"  # noqa: S105 - a prefix, not a secret
CONNECTOR_ACCESS_TOKEN = "kl_conn_"  # noqa: S105
CONNECTOR_REFRESH_TOKEN = "kl_refresh_"  # noqa: S105
RELAY_TOKEN = "kl_relay_"  # noqa: S105
CONSOLE_SESSION = "kl_console_"
SIGN_IN_LINK = "kl_link_"
#: All of them, for whoever takes secrets out of texts.
PREFIXES = (API_TOKEN, CONNECTOR_ACCESS_TOKEN, CONNECTOR_REFRESH_TOKEN, RELAY_TOKEN, CONSOLE_SESSION, SIGN_IN_LINK)


def compose(prefix: str, random: bytes) -> str:
    """Return the token text of RANDOM_BYTES random bytes; raises ValueError for another length."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"{len(random)} random bytes instead of {RANDOM_BYTES}")
    body = prefix + _digits(int.from_bytes(random, "big"), _RANDOM_CHARS)
    return body + _checksum(body)


def check(text: str, prefix: str) -> str:
    """Return `text` when it has the shape of a token with this prefix; raises InvalidToken (which never holds it)."""
    if not text.startswith(prefix):
        raise InvalidToken(f"not a token of this kind: it does not begin with {prefix}")
    body = text[:-_CHECK_CHARS]
    if len(text) != len(prefix) + _RANDOM_CHARS + _CHECK_CHARS or not text.isascii() or text[-_CHECK_CHARS:] != _checksum(body):
        raise InvalidToken("the token is incomplete or mistyped", hint="copy it again, whole")
    return text


def token_hash(text: str) -> str:
    """Return how a text secret of full entropy is stored: its SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _digits(zlib.crc32(body.encode()), _CHECK_CHARS)


def _digits(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
