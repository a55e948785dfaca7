"""Questions for names on a link's control pipe, and their answers by number."""

from __future__ import annotations

import asyncio

from klinket.domain.errors import FlowRefused, ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.net.pipe import SealedPipe
from klinket.wire import link_control
from klinket.wire.link_control import ASK_NAME, AskName, NameAnswer
from klinket.wire.pipe import FrameType

#: Questions on one link at a time, as a connector takes them of a session; a further one fails at once.
MAX_QUESTIONS = 16


class NameQuestions:
    """Those of one link. `features`: what its connector has said it understands."""

    def __init__(self, connector: str) -> None:
        self._connector = connector
        self._waiting: dict[int, asyncio.Future[NameAnswer]] = {}
        self._next = 0
        self.features: frozenset[str] = frozenset()

    async def ask(self, control: SealedPipe, name: str, record_type: int) -> NameAnswer:
        """Return the answer; raises FlowRefused when the connector cannot be asked."""
        if ASK_NAME not in self.features:
            raise FlowRefused(
                FlowFailure.UNREACHABLE,
                f"connector {self._connector} is of a version that cannot be asked for other records than addresses",
                hint="update the connector",
            )
        if len(self._waiting) >= MAX_QUESTIONS:
            raise FlowRefused(FlowFailure.THROTTLED, f"{MAX_QUESTIONS} questions for names wait for connector {self._connector}")
        self._next = (self._next + 1) % 2**32
        number = self._next
        answer: asyncio.Future[NameAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            question = AskName(id=number, name=name, record_type=record_type)
            await control.send(FrameType.CONTROL, link_control.encode(question))
            return await answer
        except OSError as error:
            raise FlowRefused(FlowFailure.NO_CONNECTOR, f"connector {self._connector}: {error}") from error
        finally:
            del self._waiting[number]

    def answered(self, answer: NameAnswer) -> None:
        """Tell whoever asked; an answer that comes too late is dropped. Raises ProtocolError for one that is too long."""
        if sum(map(len, answer.records)) > link_control.MAX_ANSWER_BYTES:
            raise ProtocolError(f"an answer above {link_control.MAX_ANSWER_BYTES} bytes")
        waiting = self._waiting.get(answer.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def lost(self) -> None:
        """Tell whoever waits that no answer will come."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(FlowRefused(FlowFailure.NO_CONNECTOR, f"connector {self._connector} is gone"))
