"""What a connector keeps on disk: its identity key, cuts in force with the head they prove, and flow events not yet stored."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from klinket.connector.limits import MAX_SPOOLED_BATCHES, MAX_SPOOLED_BYTES
from klinket.domain.errors import InvalidToken
from klinket.net.files import replace_private
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
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # it may have been there already
        self._spool.mkdir(exist_ok=True)
        # Looked up once, in order: only this process writes here, and thousands of names are not to be read each second.
        found = sorted(self._spool.glob(_BATCHES))
        #: The bytes of each batch that waits, the oldest first, and of all together.
        self._waiting = {int(path.stem): path.stat().st_size for path in found}
        self._spooled_bytes = sum(self._waiting.values())

    def identity_key(self) -> signing.PrivateKey:
        """Return this connector's key, made here at the first start; it never leaves this machine."""
        path = self._folder / "identity.pem"
        if not path.exists():
            replace_private(path, signing.private_key_to_pem(signing.generate_private_key()).encode())
        try:
            return signing.private_key_from_pem(path.read_bytes())
        except InvalidToken as error:
            raise InvalidToken(f"{path}: {error.message}", hint="remove it, and generate new tokens") from None

    # ---- cuts

    def keep_cuts(self, head: tuple[int, int], tokens: Sequence[str]) -> None:
        """Keep the signed cuts in force and the newest (epoch, revision) seen."""
        replace_private(self._folder / "cuts.json", json.dumps({"head": list(head), "cuts": list(tokens)}).encode())

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
        replace_private(self._folder / "head.json", json.dumps({"head": list(stamp), "token": token}).encode())

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
        """Keep a batch, durable, until the controller has stored it; at a bound the oldest go, aloud. Raises OSError."""
        content = msgspec.json.encode(list(events))
        while self._waiting and (
            len(self._waiting) >= MAX_SPOOLED_BATCHES or self._spooled_bytes + len(content) > MAX_SPOOLED_BYTES
        ):
            logger.error(
                "flow events: %d batches of %d bytes wait, the limit; the oldest is dropped",
                len(self._waiting),
                self._spooled_bytes,
            )
            self.stored(next(iter(self._waiting)))
        replace_private(self._path(batch), content)
        self._waiting[batch] = len(content)
        self._spooled_bytes += len(content)

    def spooled(self) -> list[int]:
        """Return the numbers of batches that wait, the oldest first."""
        return list(self._waiting)

    def batch(self, number: int) -> list[FlowEvent]:
        """Return a batch that waits; an unreadable one is dropped and reads as empty."""
        try:
            return msgspec.json.decode(self._path(number).read_bytes(), type=list[FlowEvent])
        except (OSError, msgspec.DecodeError) as error:
            logger.error("a batch of flow events is not readable: %s", error)
            self.stored(number)
            return []

    def stored(self, number: int) -> None:
        """Forget a batch: the controller has it. Raises OSError."""
        self._spooled_bytes -= self._waiting.pop(number, 0)
        self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._spool / f"{number:020d}.json"
