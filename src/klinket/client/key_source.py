"""Where a client finds its service key: a file, standard input, or the environment."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from klinket.domain.errors import ServiceKeyInvalid

if TYPE_CHECKING:
    from klinket.wire.key_file import KeyFile

#: The environment variable with the whole key file.
VARIABLE = "KLINKET_SERVICE_KEY"


def is_in_environment() -> bool:
    """Return whether the environment holds a key; an empty variable holds none."""
    return bool(os.environ.get(VARIABLE))


class KeySource:
    """A path, "-" (standard input) or, for None, KLINKET_SERVICE_KEY.

    The variable is taken out of this process's environment at once: no child gets it.
    """

    def __init__(self, source: str | None) -> None:
        self._from_environment = os.environ.pop(VARIABLE, None)
        self._source = source

    @property
    def files(self) -> list[Path]:
        """Return the regular files with the key in them: none or one."""
        path = Path(self._source) if self._source not in (None, "-") else None
        return [path.resolve()] if path is not None and path.is_file() else []

    @property
    def from_input(self) -> bool:
        """Return whether the key is read from standard input."""
        return self._source == "-"

    def is_in(self, descriptor: int) -> bool:
        """Return whether the key can be read from an open file, under whichever name that was opened."""
        if self._source is None:
            return False
        if self.from_input and descriptor == 0:
            return True
        try:
            key = os.fstat(0) if self.from_input else Path(self._source).stat()
            found = os.fstat(descriptor)
        except OSError:
            return False
        holds = stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)  # a terminal is input, output and errors alike
        return holds and (key.st_dev, key.st_ino) == (found.st_dev, found.st_ino)

    @property
    def other_names(self) -> int:
        """Return how many more names (hard links) the key file has: they cannot be hidden."""
        return max((path.stat().st_nlink - 1 for path in self.files), default=0)

    def load(self) -> KeyFile:
        """Return the key; raises ServiceKeyInvalid."""
        # Imported here: `klinket run` forks before it needs cryptography, and is smaller then.
        from klinket.wire.key_file import MAX_KEY_FILE_BYTES, parse_key_file

        if self._source is None:
            if self._from_environment is None:
                hint = f"use --key-file FILE, --key-file - or the environment variable {VARIABLE}"
                raise ServiceKeyInvalid("no service key was given", hint=hint)
            return parse_key_file(self._from_environment)
        if self._source == "-":
            return parse_key_file(sys.stdin.buffer.read(MAX_KEY_FILE_BYTES + 1))
        try:
            with Path(self._source).open("rb") as file:
                return parse_key_file(file.read(MAX_KEY_FILE_BYTES + 1))
        except OSError as error:
            raise ServiceKeyInvalid(
                f"the key file {self._source} cannot be read: {error.strerror}", hint="check the path and its permissions"
            ) from None
