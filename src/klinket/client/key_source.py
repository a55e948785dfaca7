"""Where a client finds its service key: a file, standard input, or the environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from klinket.domain.errors import ServiceKeyInvalid
from klinket.wire.key_file import MAX_KEY_FILE_BYTES, KeyFile, parse_key_file

#: The environment variable with the whole key file.
VARIABLE = "KLINKET_SERVICE_KEY"


def load_key(source: str | None) -> KeyFile:
    """Return the key of a path, of "-" (standard input) or, for None, of KLINKET_SERVICE_KEY; raises ServiceKeyInvalid.

    The variable is taken out of this process's environment: no child sees it.
    """
    from_environment = os.environ.pop(VARIABLE, None)
    if source is None:
        if from_environment is None:
            raise ServiceKeyInvalid(
                "no service key was given", hint=f"use --key-file FILE, --key-file - or the environment variable {VARIABLE}"
            )
        return parse_key_file(from_environment)
    if source == "-":
        return parse_key_file(sys.stdin.buffer.read(MAX_KEY_FILE_BYTES + 1))
    try:
        with Path(source).open("rb") as file:
            return parse_key_file(file.read(MAX_KEY_FILE_BYTES + 1))
    except OSError as error:
        raise ServiceKeyInvalid(
            f"the key file {source} cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from None
