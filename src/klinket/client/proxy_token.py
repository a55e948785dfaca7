"""The token that programs show to a proxy which listens beyond loopback."""

from __future__ import annotations

import os
from pathlib import Path

from klinket.domain.errors import InvalidInput

#: The environment variable with the token itself.
VARIABLE = "KLINKET_PROXY_TOKEN"
#: Characters of a token: nobody guesses the shortest, and SOCKS carries the longest (RFC 1929 §2).
MIN_CHARACTERS, MAX_CHARACTERS = 16, 255


def read(file: str | None) -> str | None:
    """Return the token of a file or, for None, of KLINKET_PROXY_TOKEN; None: there is none. Raises InvalidInput.

    The variable is taken out of this process's environment at once.
    """
    text, where = os.environ.pop(VARIABLE, None), VARIABLE
    if file is not None:
        where = "--proxy-token-file"
        try:
            with Path(file).open("rb") as opened:
                text = opened.read(MAX_CHARACTERS + 2).decode("latin-1")
        except OSError as error:
            raise InvalidInput(
                where, f"cannot read {file}: {error.strerror}", hint="check the path and its permissions"
            ) from error
    if text is None:
        return None
    token = text.strip()
    if not MIN_CHARACTERS <= len(token) <= MAX_CHARACTERS or not all("!" <= character <= "~" for character in token):
        raise InvalidInput(
            where,
            f"the token is not {MIN_CHARACTERS} to {MAX_CHARACTERS} printable ASCII characters without spaces",
            hint="make one with: openssl rand -hex 24",
        )
    return token
