"""What a password must be (NIST SP 800-63B): long, and not one of those that are tried first. No rules of composition."""

from __future__ import annotations

import re

from klinket.domain.errors import InvalidInput

MIN_CHARS = 12
#: A bound on what is hashed; a long sentence fits.
MAX_CHARS = 256
#: What guessers begin with, of 12 characters and more, without the digits and signs people add at the ends.
_COMMON = frozenset(
    {
        "passwordpassword",
        "administrator",
        "administrators",
        "changemeplease",
        "correcthorsebatterystaple",
        "letmeinplease",
        "qwertyuiopasdf",
        "qwertyuiop",
        "qwertyqwerty",
        "iloveyouiloveyou",
        "welcomewelcome",
        "monkeymonkey",
        "dragondragon",
        "footballfootball",
        "baseballbaseball",
        "sunshinesunshine",
        "princessprincess",
        "superadmin",
        "rootrootroot",
        "adminadminadmin",
        "testtesttest",
        "masterpassword",
        "secretpassword",
        "mypassword",
        "mysecretpassword",
        "thisismypassword",
        "defaultpassword",
        "temporarypassword",
        "qazwsxedcrfv",
        "asdfghjkl",
        "zxcvbnmasdf",
        "abcdefghijkl",
        "passwordadmin",
        "adminpassword",
        "welcomepassword",
        "password",
    }
)
_ENDS = re.compile(r"^[\W\d_]+|[\W\d_]+$")
_SEQUENCES = ("abcdefghijklmnopqrstuvwxyz", "01234567890123456789", "qwertyuiopasdfghjklzxcvbnm", "qwertzuiopasdfghjklyxcvbnm")


def check_password(text: str, personal: tuple[str, ...] = ()) -> str:
    """Return `text`; raises InvalidInput("password"). `personal`: texts it must not be made of (address, names, the network)."""
    if len(text) < MIN_CHARS:
        raise InvalidInput("password", f"the password has {len(text)} characters, {MIN_CHARS} are needed", hint=_HINT)
    if len(text) > MAX_CHARS:
        raise InvalidInput("password", f"the password has {len(text)} characters, the limit is {MAX_CHARS}")
    if not _encodable(text):
        raise InvalidInput("password", "the password holds half a character (a lone surrogate)")
    plain = text.casefold()
    core = _ENDS.sub("", plain)
    if len(set(plain)) < 5 or core in _COMMON or _is_sequence(plain):
        raise InvalidInput("password", "this password is among the first that are guessed", hint=_HINT)
    for word in personal:
        if len(word) >= 3 and word.casefold() in plain and len(plain) - len(word) < 6:
            raise InvalidInput("password", "the password is mostly your address, your name or the network's", hint=_HINT)
    return text


_HINT = "four or five words that nobody connects with you are good"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_sequence(plain: str) -> bool:
    return any(plain in sequence or plain in sequence[::-1] for sequence in _SEQUENCES)
