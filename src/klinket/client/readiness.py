"""Waiting until everything that was granted, and whatever a job wants, answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from klinket.client.core import ClientCore, Route, split_port
from klinket.domain.address import canonical_host
from klinket.domain.errors import FlowRefused, KlinketError
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.resource import Resource

#: Seconds between tries of what wait_ready waits for.
READY_ROUND_SECONDS = 0.25
#: Seconds that a grant made just now may need to arrive.
GRANT_ARRIVES_SECONDS = 2.0


class _Stream(Protocol):
    def abort(self) -> None: ...


class Readiness:
    """Asks a client's core and links. `clock`: the controller's time in seconds; `ended`: why the client is over, if it is."""

    def __init__(
        self,
        core: ClientCore,
        link: Callable[[Route], Awaitable[object]],
        open_stream: Callable[[Destination], Awaitable[_Stream]],
        clock: Callable[[], float],
        ended: Callable[[], KlinketError | None],
    ) -> None:
        self._core = core
        self._link = link
        self._open_stream = open_stream
        self._clock = clock
        self._ended = ended

    async def wait(
        self, wanted: Sequence[str], timeout: float, missing_now: Callable[[FlowRefused, float], None] = lambda _, __: None
    ) -> None:
        """Wait until a connector of every granted network, and every wanted resource, answers.

        `wanted`: names, addresses or aliases, with :port to be dialled as well. `missing_now` is told what is waited for,
        and until when (time.monotonic).
        Raises FlowRefused that names what is missing.
        """
        deadline = time.monotonic() + timeout
        missing: FlowRefused | None = None
        while True:
            try:
                async with asyncio.timeout(max(READY_ROUND_SECONDS, deadline - time.monotonic())):
                    await self._all_answer(wanted)
                return
            except TimeoutError:
                missing = missing or FlowRefused(FlowFailure.TIMED_OUT, f"no answer yet: {', '.join(wanted) or 'connectors'}")
            except FlowRefused as error:
                missing, until = error, deadline
                if error.failure in (FlowFailure.NOT_GRANTED, FlowFailure.NAME_NOT_FOUND) and self._ended() is None:
                    until = min(deadline, deadline - timeout + GRANT_ARRIVES_SECONDS)
                    if time.monotonic() > until:
                        raise  # a grant made just now may need a moment to arrive, not thirty seconds
                missing_now(error, until)
            ended = self._ended()
            if ended is not None:
                raise ended
            if time.monotonic() >= deadline:
                assert missing is not None
                raise FlowRefused(
                    missing.failure,
                    f"not ready within {timeout:.0f} s: {missing.message}",
                    hint=missing.hint or "check that the connectors and the resource are up",
                )
            await asyncio.sleep(READY_ROUND_SECONDS)

    async def networks(self, linked: Collection[int]) -> dict[Resource, FlowRefused | None]:
        """Ask a connector of each granted network but the `linked` ones; None: one answers. A resource stands for its network."""
        one_per_network = {resource.remote_network: resource for resource in reversed(self._core.resources)}

        async def problem(resource: Resource) -> FlowRefused | None:
            try:
                if resource.remote_network not in linked:
                    await self._any_link(resource)
            except FlowRefused as error:
                return error
            return None

        found = await asyncio.gather(*map(problem, one_per_network.values()))
        return dict(zip(one_per_network.values(), found, strict=True))

    async def _all_answer(self, wanted: Sequence[str]) -> None:
        one_per_network = {resource.remote_network: resource for resource in self._core.resources}
        await asyncio.gather(*(self._any_link(resource) for resource in one_per_network.values()))
        for text in wanted:
            resource = self._core.find(text)
            host, port = split_port(text)
            if port is not None:
                host = self._core.host_of(resource, host)
                (await self._open_stream(Destination(canonical_host(host), port, TransportProtocol.TCP))).abort()
            else:
                await self._any_link(resource)

    async def _any_link(self, resource: Resource) -> None:
        failure: FlowRefused | None = None
        for route in self._core.routes(resource, self._clock()):
            try:
                await self._link(route)
                return
            except FlowRefused as error:
                failure = error
        assert failure is not None
        raise failure
