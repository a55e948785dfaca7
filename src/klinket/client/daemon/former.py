"""What was granted before the daemon was started again: until it is online, nobody else is asked for these names.

Kept while a daemon runs, and after it has died; `klinket stop` removes it, and a reboot does (security.md 22).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from klinket.domain.errors import ProtocolError
from klinket.domain.resource import Resource, ResourceIndex
from klinket.net.files import replace_private
from klinket.wire.inventory import ResourceEntry, entry_of, resource_of

logger = logging.getLogger(__name__)

#: Bytes of the file that are read.
MAX_BYTES = 32 * 1024 * 1024


def keep(path: Path, resources: Sequence[Resource]) -> None:
    """Replace what is kept. A disk that takes nothing is told, and stops nothing."""
    try:
        replace_private(path, msgspec.json.encode([entry_of(resource) for resource in resources]))
    except OSError as error:
        logger.error("what is granted cannot be kept for the next start: %s", error.strerror)


def read(path: Path) -> ResourceIndex:
    """Return what was kept; nothing where there is none, or it cannot be read."""
    try:
        with path.open("rb") as file:
            entries = msgspec.json.decode(file.read(MAX_BYTES), type=list[ResourceEntry])
        return ResourceIndex(resource_of(entry) for entry in entries)
    except FileNotFoundError:
        return ResourceIndex(())
    except (OSError, msgspec.DecodeError, ProtocolError) as error:
        logger.error("what was granted before is not known: %s", error)
        return ResourceIndex(())


def forget(path: Path) -> None:
    """Remove what is kept."""
    path.unlink(missing_ok=True)
