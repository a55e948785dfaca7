"""A session for one command. The command begins when what it was granted answers, and the session ends with it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from klinket.client import starting, terminal
from klinket.client.capture import descriptors
from klinket.client.capture.command import CapturedCommand
from klinket.client.client import Client
from klinket.client.key_source import VARIABLE, KeySource
from klinket.client.run import RunSettings, tell
from klinket.domain.errors import CaptureImpossible, KlinketError
from klinket.net.tasks import TaskSet

if TYPE_CHECKING:
    from klinket.client.capture.namespace.forked import Forked

#: Seconds after which a wait is said to be one, and between repetitions.
PATIENCE_SECONDS = 1.5
REMIND_SECONDS = 5.0
#: Seconds to wait, when the command has ended, for the reason why its flows were cut.
LAST_WORD_SECONDS = 1.0
_PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTSTP", "SIGCONT")


class Job:
    """`forked`: the process that becomes the command in a namespace, None: proxy variables."""

    def __init__(self, source: KeySource, settings: RunSettings, forked: Forked | None) -> None:
        self._source = source
        self._settings = settings
        self._command: CapturedCommand | None = None
        if forked is not None:
            from klinket.client.capture.namespace.command import NamespaceCommand

            self._command = NamespaceCommand(forked, tell, host_loopback=settings.host_loopback)
        #: A terminal's Ctrl-C has reached the command.
        self.interrupted = False
        self._tasks = TaskSet("run")
        self._deadline = time.monotonic() + settings.timeout
        self._gives_up = self._deadline
        self._waiting_for = "the controller has not answered yet"
        self._stopped_by: int | None = None

    async def main(self) -> int:
        """Prepare, log in, wait until ready, run, end."""
        client: Client | None = None
        main = asyncio.current_task()
        assert main is not None
        self._pass_signals_on(main)
        self._tasks.start(self._remind(), "reminder")
        try:
            key_file = self._source.load()
            client = Client(key_file, self._settings.only)
            preparing = asyncio.ensure_future(self._prepare())
            try:
                await self._log_in(client)
            finally:
                await asyncio.gather(preparing, return_exceptions=True)
            command = preparing.result()
            await command.serve(client)
            await self._until_ready(client)
            self._waiting_for = ""
            await command.start()
            gc.freeze()
            gc.enable()
            terminal.watch_stops(command.pid, self._command_stopped)
            telling = self._tasks.start(_tell_the_end(client), "end of session")
            code = await command.wait()
            if client.end_is_near:  # a command that ends at once with its flow must not take the reason with it
                await asyncio.wait([telling], timeout=LAST_WORD_SECONDS)
            return code
        except asyncio.CancelledError:
            if self._stopped_by is None:
                raise
            return 128 + self._stopped_by
        finally:
            await self._tasks.aclose()
            if self._command is not None:
                await self._command.aclose()
            if client is not None:
                await client.aclose()

    async def _prepare(self) -> CapturedCommand:
        if self._command is not None:
            try:
                await self._command.prepare()
                return self._command
            except CaptureImpossible as error:
                await self._command.aclose()
                self._command = None
                if self._settings.capture == "namespace":
                    raise
                tell(f"klinket: {error.code}: {error}")
                tell("  going on with proxy variables: programs that ignore HTTPS_PROXY and ALL_PROXY reach nothing granted")
        elif self._settings.capture == "namespace":
            raise CaptureImpossible("namespaces are there on Linux only", hint="use --capture proxy")
        for path in self._source.files:
            tell(f"klinket: with proxy variables the command can read the key file {path}")
            tell(f"  give the key as {VARIABLE} or with --key-file - to keep it from the command")
        from klinket.client.capture.variables import VariablesCommand

        self._command = VariablesCommand(
            self._settings.arguments,
            os.environ,
            tell,
            self._settings.pass_descriptors,
            empty_input=0 in descriptors.with_the_key(self._source),
        )
        return self._command

    async def _log_in(self, client: Client) -> None:
        def waiting(why: str) -> None:
            self._waiting_for = why

        await starting.start(client, self._deadline, waiting)

    async def _until_ready(self, client: Client) -> None:
        if not client.resources and not self._settings.only:
            tell("klinket: nothing is granted to this service account: the command reaches no resource")

        # With proxy variables as well: NO_PROXY names localhost, and Go programs use no proxy for any loopback address.
        for resource in client.resources:
            own = resource.address.network is not None and resource.address.network.is_loopback
            if own and not resource.alias:  # with one, programs are told to use it
                tell(
                    f"klinket: the resource {resource.name!r} is at {resource.address.text}, which is the command's own machine:"
                    " give the resource an alias, and use that"
                )

        def missing(error: KlinketError, until: float) -> None:
            self._waiting_for, self._gives_up = error.message, until

        wanted = [*self._settings.only, *self._settings.wait]
        await client.wait_ready(wanted, max(0.0, self._deadline - time.monotonic()), missing)

    async def _remind(self) -> None:
        await asyncio.sleep(PATIENCE_SECONDS)
        while self._waiting_for:
            left = max(0.0, self._gives_up - time.monotonic())
            tell(f"klinket: waiting: {self._waiting_for} (giving up in {left:.0f} s)")
            await asyncio.sleep(REMIND_SECONDS)

    def _pass_signals_on(self, main: asyncio.Task[int]) -> None:
        if sys.platform == "win32":
            return
        loop = asyncio.get_running_loop()
        for name in _PASSED_ON:
            loop.add_signal_handler(getattr(signal, name), self._signalled, int(getattr(signal, name)), main)

    def _signalled(self, number: int, main: asyncio.Task[int]) -> None:
        if self._waiting_for:
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
                self._stopped_by = number
                self.interrupted = number == signal.SIGINT and terminal.in_foreground()
                main.cancel()
            elif number == signal.SIGTSTP:
                os.kill(os.getpid(), signal.SIGSTOP)
        elif self._command is not None:
            # What a terminal sends, it sends to the command as well: passed on, it would come twice.
            if number in terminal.SENT_BY_IT and terminal.in_foreground():
                self.interrupted = self.interrupted or number == signal.SIGINT
            elif number != signal.SIGCONT or not terminal.has_stopped_anew(self._command.pid):
                self._command.signal(number)

    def _command_stopped(self) -> None:
        """Stop as the command has, so that the shell takes its terminal back; SIGCONT is passed on when it goes on."""
        os.kill(os.getpid(), signal.SIGSTOP)


async def _tell_the_end(client: Client) -> None:
    await client.ended.wait()
    if client.end_reason is not None:
        tell(f"klinket: {client.end_reason.code}: {client.end_reason}; the command goes on without access")
