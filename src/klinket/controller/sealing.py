"""Private keys at rest: AES-256-GCM under the master key, bound to what they are (DESIGN §3)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from klinket.domain.errors import KlinketError
from klinket.net.files import replace_private

MASTER_KEY_BYTES = 32
_NONCE_BYTES = 12
_CREDENTIAL = "klinket-master-key"
_VARIABLE = "KLINKET_MASTER_KEY"
_HEX = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


class MasterKeyWrong(KlinketError):
    """The master key is missing, malformed, readable by others, or not the one that sealed this database."""

    code = "master-key-wrong"


@dataclass(frozen=True, slots=True, eq=False)
class MasterKey:
    """Seals and opens small secrets."""

    _key: bytes = field(repr=False)

    def seal(self, secret: bytes, what: str) -> bytes:
        """Return the sealed secret; it opens only as `what` (for example "authority client")."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._key).encrypt(nonce, secret, what.encode())

    def open(self, sealed: bytes, what: str) -> bytes:
        """Return the secret; raises MasterKeyWrong."""
        try:
            return AESGCM(self._key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], what.encode())
        except (InvalidTag, ValueError) as error:
            raise MasterKeyWrong(
                f"the master key does not open {what}", hint="give the master key this database was made with"
            ) from error


def load_or_make(path: Path, *, may_make: bool = True) -> MasterKey:
    """Return the master key: a systemd credential, else KLINKET_MASTER_KEY (64 hex digits), else the 0600 file `path`.

    The file is made when there is none, if it `may_make` one. Raises MasterKeyWrong.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder and (credential := Path(folder) / _CREDENTIAL).exists():
        return _parsed(credential.read_text(), str(credential))
    if text := os.environ.pop(_VARIABLE, ""):  # children (the relay) must not inherit it
        return _parsed(text, _VARIABLE)
    if not path.exists():
        if not may_make:
            raise MasterKeyWrong(f"there is no master key at {path}", hint="give what the controller has: --master-key-file")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_private(path, (os.urandom(MASTER_KEY_BYTES).hex() + "\n").encode())
    if path.stat().st_mode & 0o077:
        raise MasterKeyWrong(f"{path} is readable by others", hint=f"chmod 600 {path}")
    return _parsed(path.read_text(), str(path))


def _parsed(text: str, source: str) -> MasterKey:
    if not _HEX.fullmatch(text.strip()):
        raise MasterKeyWrong(f"{source} does not hold 64 hexadecimal digits")
    return MasterKey(bytes.fromhex(text.strip()))
