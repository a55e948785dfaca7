"""What the answer to a fast connect says of its connector: it comes when data flows already, and the next connect goes by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from klinket.client.link import ConnectorLink
from klinket.domain.connector_choice import ConnectorChoice
from klinket.domain.flow import FlowFailure
from klinket.domain.resource import Resource
from klinket.net.tasks import TaskSet

#: What another connector may answer otherwise: this one does not reach the resource.
OF_THE_RESOURCE = (FlowFailure.TIMED_OUT, FlowFailure.UNREACHABLE, FlowFailure.NAME_NOT_FOUND)
#: What says that the connector itself takes no flows.
OF_THE_CONNECTOR = (FlowFailure.DRAINING, FlowFailure.NO_CONNECTOR)


class LateAnswer:
    """`silent`: returns whether a link's other end does not answer any more, and gives it up then. `clock`: as for `choice`."""

    def __init__(
        self,
        link: ConnectorLink,
        resource: Resource,
        host: str,
        choice: ConnectorChoice,
        clock: Callable[[], float],
        silent: Callable[[ConnectorLink], Awaitable[bool]],
        tasks: TaskSet,
    ) -> None:
        self._link = link
        self._resource = resource
        self._host = host
        self._choice = choice
        self._clock = clock
        self._silent = silent
        self._tasks = tasks

    def opened(self) -> None:
        """Note that the connector reached the resource."""
        self._choice.works(self._link.connector.id)
        self._choice.reached(self._link.connector.id, self._resource.id, self._host)

    def refused(self, failure: FlowFailure) -> None:
        """Note the connector's refusal: where another may answer otherwise, that one comes first next time."""
        if failure in OF_THE_RESOURCE:
            self._choice.missed(self._link.connector.id, self._resource.id, self._host, self._clock())
        elif failure in OF_THE_CONNECTOR:
            self._choice.failed(self._link.connector.id, self._clock())

    def never_came(self) -> None:
        """Note that no answer came in time, and ask whether the connector is there at all."""
        self._tasks.start(self._ask(), f"whether {self._link.connector.name} is there")

    async def _ask(self) -> None:
        if await self._silent(self._link):
            self._choice.failed(self._link.connector.id, self._clock())
        else:
            self.refused(FlowFailure.TIMED_OUT)
