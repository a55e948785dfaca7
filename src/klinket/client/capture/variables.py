"""The command with proxy variables in its environment: for hosts that forbid namespaces. Programs may ignore them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from klinket.client.capture import descriptors, proxy_variables
from klinket.client.capture.command import CANNOT_EXECUTE, NOT_FOUND, NotExecuted
from klinket.client.capture.proxy import Proxy, speak_http, speak_socks
from klinket.client.ports import FlowOpener
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination
from klinket.net.sockets import HostPort

_ANY_PORT = HostPort("127.0.0.1", 0)
#: Seconds for the command to end after SIGTERM when klinket itself ends.
END_SECONDS = 5.0


class VariablesCommand:
    """Implements CapturedCommand. What is not granted is dialled directly, as without klinket."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        told: Callable[[str], None],
        pass_descriptors: Sequence[int] = (),
        *,
        empty_input: bool = False,
    ) -> None:
        """`empty_input`: the command's standard input is at its end, klinket has read its key there."""
        self._pass_descriptors = tuple(pass_descriptors)
        self._input = asyncio.subprocess.DEVNULL if empty_input else None
        self._arguments = arguments
        self._environment = dict(environment)
        self._told = told
        self._proxies: list[Proxy] = []
        self._process: asyncio.subprocess.Process | None = None
        self._signals_before: list[int] = []

    async def prepare(self) -> None:
        """Nothing to prepare."""

    async def serve(self, client: FlowOpener) -> None:
        """Start the proxies and name them in the environment."""
        addresses = []
        for speak in (speak_http, speak_socks):
            proxy = Proxy(client, speak, others_direct=True, told=self._tell)
            self._proxies.append(proxy)
            addresses.append(proxy.listen(_ANY_PORT))
        http, socks = addresses
        self._environment.update(proxy_variables.of(str(http), str(socks)))

    def _tell(self, destination: Destination, refused: FlowRefused) -> None:
        self._told(f"klinket: {destination.host}:{destination.port}: {refused.failure.value}: {refused}")

    async def start(self) -> None:
        """Execute the command; raises NotExecuted."""
        parent = os.getpid()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments,
                env=self._environment,
                stdin=self._input,
                pass_fds=self._pass_descriptors,
                preexec_fn=lambda: _before_exec(parent, self._pass_descriptors),
            )
        except FileNotFoundError as error:
            raise NotExecuted(f"{self._arguments[0]}: command not found", NOT_FOUND) from error
        except OSError as error:
            raise NotExecuted(f"{self._arguments[0]}: {error.strerror}", CANNOT_EXECUTE) from error
        for number in self._signals_before:
            self.signal(number)

    @property
    def pid(self) -> int:
        """Return the number of the command's process."""
        assert self._process is not None
        return self._process.pid

    async def wait(self) -> int:
        """Return the command's exit code."""
        assert self._process is not None
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        """Pass a signal on; one that comes while `start` is under way, as soon as the command's number is known."""
        if self._process is None:
            self._signals_before.append(number)  # the command may run already, and whoever saw it do so signals now
        elif self._process.returncode is None:
            self._process.send_signal(number)

    async def aclose(self) -> None:
        """End the command if it still runs, and the proxies."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(END_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        for proxy in self._proxies:
            await proxy.aclose()


def _before_exec(parent: int, pass_descriptors: Sequence[int]) -> None:
    descriptors.keep_only(pass_descriptors)  # uvloop's subprocesses inherit all that this process has inherited
    if sys.platform == "linux":
        from klinket.client.capture import syscalls

        syscalls.die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
