"""Recovery codes: ten texts on paper, each of which replaces the second factor once."""

from __future__ import annotations

import hashlib
import re

from klinket.domain.errors import InvalidInput

CODES = 10
RANDOM_BYTES = 10
#: Crockford's base 32: nothing that looks like something else.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LOOKALIKES = str.maketrans("ilou", "110v")
_SHAPE = re.compile(rf"[{_ALPHABET}]{{16}}")


def compose(random: bytes) -> str:
    """Return the code of RANDOM_BYTES random bytes: four groups of four characters, 80 bits."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"{len(random)} random bytes instead of {RANDOM_BYTES}")
    number = int.from_bytes(random, "big")
    digits = "".join(_ALPHABET[number >> shift & 31] for shift in range(75, -1, -5))
    return "-".join(digits[at : at + 4] for at in range(0, 16, 4))


def parse(text: str) -> str:
    """Return a code as typed in the form it was composed in; raises InvalidInput("code"), which never holds it."""
    digits = re.sub(r"[\s-]", "", text.lower()).translate(_LOOKALIKES)
    if not _SHAPE.fullmatch(digits):
        raise InvalidInput("code", "that is no recovery code", hint="a code has four groups of four letters and digits")
    return "-".join(digits[at : at + 4] for at in range(0, 16, 4))


def code_hash(user_id: int, code: str) -> str:
    """Return how a code is stored: SHA-256 over the user and the code, which has entropy enough for it, in hexadecimal."""
    return hashlib.sha256(f"recovery code {user_id} {code}".encode()).hexdigest()
