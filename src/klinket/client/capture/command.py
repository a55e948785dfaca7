"""The command of `klinket run`, whichever way its connections are captured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from klinket.domain.errors import KlinketError

if TYPE_CHECKING:
    from klinket.client.ports import FlowOpener

CANNOT_EXECUTE = 126
NOT_FOUND = 127


class NotExecuted(KlinketError):
    """The command was not found (127) or cannot be executed (126), as shells have it."""

    code = "command-not-executed"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CapturedCommand(Protocol):
    """A command that is prepared, served, started and waited for, in this order."""

    @property
    def pid(self) -> int:
        """Return the number of the command's process; there is one when `start` has returned."""

    async def prepare(self) -> None:
        """Make everything ready but the command; raises CaptureImpossible."""

    async def serve(self, client: FlowOpener) -> None:
        """Begin to serve what the command will open; raises CaptureImpossible."""

    async def start(self) -> None:
        """Execute the command; raises NotExecuted."""

    async def wait(self) -> int:
        """Return the command's exit code; 128 + N when signal N ended it."""

    def signal(self, number: int) -> None:
        """Pass a signal on."""

    async def aclose(self) -> None:
        """End the command if it still runs, and everything that served it."""
