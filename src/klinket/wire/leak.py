"""Finding service keys and tokens in texts: what a scanner of repositories, logs and disks looks for.

A finding says where and what, never the secret. Tokens are told by prefix and checksum (domain.token_text), key files by their
members; so nothing that merely looks alike is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from klinket.domain import token_text
from klinket.domain.errors import InvalidToken

_KINDS = {
    token_text.API_TOKEN: "API token",
    token_text.CONNECTOR_ACCESS_TOKEN: "connector access token",
    token_text.CONNECTOR_REFRESH_TOKEN: "connector refresh token",
    token_text.RELAY_TOKEN: "relay token",
}
_TOKEN = re.compile(rf"(?:{'|'.join(map(re.escape, _KINDS))})[0-9A-Za-z]{{47}}(?![0-9A-Za-z])", re.ASCII)
#: A key file's private key: also escaped once more, as a key file inside JSON or a shell variable is.
_PRIVATE_KEY = re.compile(r'\\*"private_key\\*"\s*:\s*\\*"\s*-----BEGIN (?:EC )?PRIVATE KEY-----', re.ASCII)
_KEY_ID = re.compile(r'\\*"key_id\\*"\s*:\s*\\*"([\w-]{1,64})\\*"', re.ASCII)
#: Characters around a private key within which the other members of its key file are looked for.
_NEAR = 6_000


@dataclass(frozen=True, slots=True)
class Finding:
    """`line` counts from 1; `id` is the key id of a service key, or the prefix of a token: enough to find and end it."""

    line: int
    kind: str
    id: str


def find_secrets(text: str) -> Iterator[Finding]:
    """Yield every service key and token in a text, in the order of the text for each kind."""
    for match in _TOKEN.finditer(text):
        prefix = next(one for one in _KINDS if match[0].startswith(one))
        try:
            token_text.check(match[0], prefix)
        except InvalidToken:
            continue
        yield Finding(_line(text, match.start()), _KINDS[prefix], f"{match[0][: len(prefix) + 4]}...")
    for match in _PRIVATE_KEY.finditer(text):
        near = text[max(0, match.start() - _NEAR) : match.end() + _NEAR]
        key_id = _KEY_ID.search(near)
        if key_id is not None and "service_account_id" in near:
            yield Finding(_line(text, match.start()), "service key", key_id[1])


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1
