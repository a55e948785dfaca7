"""`klinket run`: a session for one command. The command begins when what it was granted answers, and the session ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from klinket.client.capture import descriptors
from klinket.client.capture.command import CapturedCommand
from klinket.client.capture.variables import VariablesCommand
from klinket.client.client import Client
from klinket.client.key_source import VARIABLE, KeySource
from klinket.domain.errors import CaptureImpossible, ControllerUnreachable, KlinketError, NotTheController, Throttled
from klinket.net.backoff import Backoff
from klinket.net.tasks import TaskSet

#: Seconds after which a wait is said to be one, and between repetitions.
PATIENCE_SECONDS = 1.5
REMIND_SECONDS = 5.0
#: Seconds to wait, when the command has ended, for the reason why its flows were cut.
LAST_WORD_SECONDS = 1.0
#: Seconds before the end of `--timeout` at which a login is tried for the last time.
LAST_TRY_SECONDS = 0.5
_PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")
#: Signals a terminal sends to the command itself as well.
_FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT) if sys.platform != "win32" else ()


@dataclass(frozen=True, slots=True)
class RunSettings:
    """`capture`: "namespace", "proxy", or "auto" for the first that is possible; `timeout`: seconds until ready.

    `pass_descriptors`: open files above 2 that the command gets; it gets no others.
    """

    arguments: Sequence[str]
    wait: Sequence[str]
    timeout: float
    capture: str
    pass_descriptors: Sequence[int] = ()


def tell(line: str) -> None:
    """Say something beside the command's own output."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def run(source: KeySource, settings: RunSettings, run_async: Callable[..., int]) -> int:
    """Return the command's exit code; raises KlinketError when it was not started. Call it before there are threads."""
    descriptors.check(settings.pass_descriptors, source)
    if source.other_names:
        names = "one more name" if source.other_names == 1 else f"{source.other_names} more names"
        tell(f"klinket: the key file has {names} (hard links): only {source.files[0]} can be hidden from the command")
    forked = _fork(source, settings)
    if sys.platform == "linux":
        from klinket.client.capture import syscalls

        syscalls.be_undumpable()
    return run_async(_Run(source, settings, forked).main())


def _fork(source: KeySource, settings: RunSettings) -> CapturedCommand | None:
    if settings.capture == "proxy" or sys.platform != "linux":
        return None
    from klinket.client.capture.namespace.command import NamespaceCommand

    emptied = descriptors.with_the_key(source)
    return NamespaceCommand.fork(settings.arguments, source.files, tell, settings.pass_descriptors, emptied)


class _Run:
    def __init__(self, source: KeySource, settings: RunSettings, forked: CapturedCommand | None) -> None:
        self._source = source
        self._settings = settings
        self._command = forked
        self._tasks = TaskSet("run")
        self._deadline = time.monotonic() + settings.timeout
        self._gives_up = self._deadline
        self._waiting_for = "the controller has not answered yet"
        self._stopped_by: int | None = None

    async def main(self) -> int:
        """Prepare, log in, wait until ready, run, end."""
        client: Client | None = None
        starting = asyncio.current_task()
        assert starting is not None
        self._pass_signals_on(starting)
        self._tasks.start(self._remind(), "reminder")
        try:
            key_file = self._source.load()
            client = Client(key_file)
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
        self._command = VariablesCommand(
            self._settings.arguments,
            os.environ,
            tell,
            self._settings.pass_descriptors,
            empty_input=0 in descriptors.with_the_key(self._source),
        )
        return self._command

    async def _log_in(self, client: Client) -> None:
        backoff = Backoff()
        while True:
            try:
                await client.start()
                return
            except NotTheController:
                raise  # waiting does not make it the controller
            except (ControllerUnreachable, Throttled) as error:
                left = self._deadline - LAST_TRY_SECONDS - time.monotonic()
                if left <= 0 or (error.retry_after or 0.0) > left:
                    raise
                self._waiting_for = error.message
                await asyncio.sleep(min(max(backoff.next(), error.retry_after or 0.0), left))

    async def _until_ready(self, client: Client) -> None:
        if not client.resources:
            tell("klinket: nothing is granted to this service account: the command reaches no resource")

        # With proxy variables as well: NO_PROXY names localhost, and Go programs use no proxy for any loopback address.
        for resource in client.resources:
            if resource.address.network is not None and resource.address.network.is_loopback:
                tell(
                    f"klinket: the resource {resource.name!r} is at {resource.address.text}, which is the command's own machine:"
                    f" {f'use its alias {resource.alias}' if resource.alias else 'give the resource an alias, and use that'}"
                )

        def missing(error: KlinketError, until: float) -> None:
            self._waiting_for, self._gives_up = error.message, until

        await client.wait_ready(self._settings.wait, max(0.0, self._deadline - time.monotonic()), missing)

    async def _remind(self) -> None:
        await asyncio.sleep(PATIENCE_SECONDS)
        while self._waiting_for:
            left = max(0.0, self._gives_up - time.monotonic())
            tell(f"klinket: waiting: {self._waiting_for} (giving up in {left:.0f} s)")
            await asyncio.sleep(REMIND_SECONDS)

    def _pass_signals_on(self, starting: asyncio.Task[int]) -> None:
        if sys.platform == "win32":
            return
        loop = asyncio.get_running_loop()
        # A terminal's Ctrl-C reaches the command by itself; passing it on would send it twice.
        from_terminal = _FROM_THE_TERMINAL if _in_foreground() else ()

        def handle(number: int) -> None:
            if self._waiting_for:
                if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
                    self._stopped_by = number
                    starting.cancel()
            elif self._command is not None and number not in from_terminal:
                self._command.signal(number)

        for name in _PASSED_ON:
            loop.add_signal_handler(getattr(signal, name), handle, int(getattr(signal, name)))


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


async def _tell_the_end(client: Client) -> None:
    await client.ended.wait()
    if client.end_reason is not None:
        tell(f"klinket: {client.end_reason.code}: {client.end_reason}; the command goes on without access")
