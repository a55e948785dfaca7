"""What a connector keeps on disk: its identity key, cuts in force with the head they prove, and flow events not yet stored."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from klinket.connector.limits import MAX_SPOOLED_BATCHES
from klinket.domain.errors import InvalidToken
from klinket.wire import signing
from klinket.wire.control import FlowEvent

logger = logging.getLogger(__name__)

#: Files of batches, named by their 20 digits; what else lies there is somebody else's.
_BATCHES = "[0-9]" * 20 + ".json"


class ConnectorState:
    """The state folder, mode 0700."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spool = folder / "flow-events"
        self._spool.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)

    def identity_key(self) -> signing.PrivateKey:
        """Return this connector's key, made here at the first start; it never leaves this machine."""
        path = self._folder / "identity.pem"
        if not path.exists():
            _write(path, signing.private_key_to_pem(signing.generate_private_key()).encode())
        try:
            return signing.private_key_from_pem(path.read_bytes())
        except InvalidToken as error:
            raise InvalidToken(f"{path}: {error.message}", hint="remove it, and generate new tokens") from None

    # ---- cuts

    def keep_cuts(self, head: tuple[int, int], tokens: Sequence[str]) -> None:
        """Keep the signed cuts in force and the newest (epoch, revision) seen."""
        _write(self._folder / "cuts.json", json.dumps({"head": list(head), "cuts": list(tokens)}).encode())

    def kept_cuts(self) -> tuple[tuple[int, int], list[str]]:
        """Return what keep_cuts has kept; nothing where there is nothing readable."""
        try:
            document = json.loads((self._folder / "cuts.json").read_bytes())
            epoch, revision = document["head"]
            return (int(epoch), int(revision)), [str(token) for token in document["cuts"]]
        except FileNotFoundError:
            return (0, 0), []
        except (ValueError, KeyError, TypeError) as error:
            logger.error("kept cuts are not readable (%s): waiting for the controller's", error)
            return (0, 0), []

    # ---- the head

    def keep_head(self, stamp: tuple[int, int], token: str) -> None:
        """Keep the newest signed head."""
        _write(self._folder / "head.json", json.dumps({"head": list(stamp), "token": token}).encode())

    def kept_head(self) -> tuple[tuple[int, int], str]:
        """Return what keep_head has kept; nothing where there is nothing readable."""
        try:
            document = json.loads((self._folder / "head.json").read_bytes())
            epoch, revision = document["head"]
            return (int(epoch), int(revision)), str(document["token"])
        except (OSError, ValueError, KeyError, TypeError):
            return (0, 0), ""

    # ---- flow events

    def spool(self, batch: int, events: Sequence[FlowEvent]) -> None:
        """Keep a batch until the controller has stored it; at the bound the oldest goes, aloud."""
        names = sorted(self._spool.glob(_BATCHES))
        if len(names) >= MAX_SPOOLED_BATCHES:
            logger.error("flow events: %d batches wait, the limit; the oldest is dropped", len(names))
            names[0].unlink(missing_ok=True)
        path = self._spool / f"{batch:020d}.json"
        temporary = path.with_suffix(".new")
        try:
            temporary.write_bytes(msgspec.json.encode(list(events)))
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def spooled(self) -> list[int]:
        """Return the numbers of batches that wait, the oldest first."""
        return sorted(int(path.stem) for path in self._spool.glob(_BATCHES))

    def batch(self, number: int) -> list[FlowEvent]:
        """Return a batch that waits; an unreadable one is dropped and reads as empty."""
        path = self._spool / f"{number:020d}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[FlowEvent])
        except (OSError, msgspec.DecodeError) as error:
            logger.error("a batch of flow events is not readable: %s", error)
            path.unlink(missing_ok=True)
            return []

    def stored(self, number: int) -> None:
        """Forget a batch: the controller has it."""
        (self._spool / f"{number:020d}.json").unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole, durable, readable by this user only."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
