"""A link with one connector: its control pipe with the grant, and warm pipes for flows."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from klinket.client.core import ClientCore
from klinket.client.datagram_way import RelayedWay, relayed_pipe
from klinket.client.name_questions import NameQuestions
from klinket.client.punching import PunchedPath
from klinket.client.sealed_datagrams import SealedDatagrams
from klinket.client.warm_pipes import WarmPipes
from klinket.domain.errors import FlowRefused, KlinketError, ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ConnectorId, Thumbprint
from klinket.domain.token_buckets import TokenBuckets
from klinket.net import pipe as pipes
from klinket.net.clock import entropy
from klinket.net.direct_path import DirectPath, DirectUnavailable
from klinket.net.hedged import hedged
from klinket.net.link import LinkInitiator
from klinket.net.pipe import SealedPipe
from klinket.net.pipe_receiver import Frame
from klinket.net.relay_path import Leg, RelayPath
from klinket.net.tasks import TaskSet
from klinket.wire import link_control
from klinket.wire.identity import ConnectorIdentity
from klinket.wire.inventory import ConnectorEntry
from klinket.wire.link import Link
from klinket.wire.link_control import DatagramsOpened, Drain, GrantAccepted, GrantRefused, NameAnswer, NoDatagrams, Ping, Pong
from klinket.wire.pipe import FrameType, Purpose
from klinket.wire.relay import RelayError

logger = logging.getLogger(__name__)

#: Seconds to wait for the greeting of a connection that was joined: it is on its way already.
GREETING_SECONDS = 5.0
#: Seconds to make a link and have the grant accepted.
LINK_SECONDS = 10.0
#: Part of a link's life after which it is replaced.
REPLACE_AT = 0.5

#: Messages of a connector on one link, at once and a second after that; what comes faster waits unread. A longer one counts once
#: more for each of so many bytes.
MESSAGE_BURST, MESSAGES_PER_SECOND = 1_000, 400.0
MESSAGE_UNIT_BYTES = 4_096

#: Seconds between questions for a connector's load, while flows are opened.
LOAD_SECONDS = 5.0
#: Seconds after which the next path to a connector is tried beside the first.
NEXT_PATH_SECONDS = 0.3

#: A way to a connector.
Path = RelayPath | DirectPath | PunchedPath


class LinkLost(FlowRefused):
    """The link or its connector is gone; another may serve the flow."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(FlowFailure.NO_CONNECTOR, message, hint=hint)


class ConnectorLink:
    """This session with one connector. Make it with `open`."""

    def __init__(
        self, connector: ConnectorEntry, paths: Sequence[Path], link: Link, core: ClientCore, clock: Callable[[], float]
    ) -> None:
        self.connector = connector
        self._paths = paths
        self._link = link
        self._core = core
        self._clock = clock
        self._made_at = clock()
        self._control: SealedPipe | None = None
        self._answers: asyncio.Queue[GrantAccepted | GrantRefused] = asyncio.Queue(1)
        self._names = NameQuestions(connector.name)
        self._presenting = asyncio.Lock()
        self._presented = ""
        self._tasks = TaskSet(f"link with {connector.name}")
        self._rate = TokenBuckets(MESSAGE_BURST, MESSAGES_PER_SECOND)
        #: On the event loop's clock: when it was asked last, and when it has answered last, whether it is there.
        self._asked_at = self._answered_at = float("-inf")
        self._answered = asyncio.Event()
        #: The relay of the control pipe; None where it is direct.
        self.control_relay: int | None = None
        self._warm = WarmPipes(self._new_pipe, self._tasks)
        #: Sealed datagrams of UDP flows, beside the pipes.
        self.datagrams = SealedDatagrams(
            link, self._tell, self._where, RelayedWay(self._datagrams_over_relay, self._datagram_pipe)
        )
        #: The relays through which there may be pipes beside those of `paths`.
        self.relay_paths: Callable[[], Sequence[RelayPath]] = lambda: [path for path in paths if isinstance(path, RelayPath)]
        self.usable = False

    @classmethod
    async def open(
        cls,
        connector: ConnectorEntry,
        paths: Sequence[Path],
        initiator: LinkInitiator,
        network: str,
        core: ClientCore,
        clock: Callable[[], float],
    ) -> ConnectorLink:
        """Return a usable link: handshake done, grant accepted. Raises FlowRefused."""
        try:
            async with asyncio.timeout(LINK_SECONDS):
                sock, _ = await _connect(paths, connector.id)
                try:
                    expected = ConnectorIdentity(network, ConnectorId(connector.id))
                    link = await initiator.offer(sock, expected, Thumbprint(connector.jkt), now=clock(), entropy=entropy)
                finally:
                    sock.close()
                made = cls(connector, paths, link, core, clock)
                try:
                    await made._open_control()
                    await made.present_grant()
                except BaseException:
                    await made.aclose()
                    raise
                return made
        except TimeoutError as error:
            raise LinkLost(f"connector {connector.name} did not answer within {LINK_SECONDS:.0f} s") from error
        except OSError as error:
            raise LinkLost(f"connector {connector.name}: {error}") from error
        except FlowRefused:
            raise
        except KlinketError as error:
            raise LinkLost(f"connector {connector.name}: {error.message}") from error

    @property
    def old(self) -> bool:
        """Return whether the link should be replaced by a new one."""
        now = self._clock()
        return now >= self._made_at + (self._link.expires_at - self._made_at) * REPLACE_AT

    @property
    def age(self) -> float:
        """Return for how many seconds the link has been there."""
        return self._clock() - self._made_at

    @property
    def direct(self) -> bool:
        """Return whether nobody is between the two ends."""
        return any(isinstance(path, DirectPath | PunchedPath) for path in self._paths)

    @property
    def punched(self) -> PunchedPath | None:
        """Return the way through both sides' NATs that this link takes, or None."""
        return next((path for path in self._paths if isinstance(path, PunchedPath)), None)

    @property
    def relays(self) -> list[int]:
        """Return the relays this link may go through; none where it is direct."""
        return [path.relay.id for path in self._paths if isinstance(path, RelayPath)]

    # ---- control pipe

    async def _open_control(self) -> None:
        sock, path = await _connect(self._paths, self.connector.id)
        self.control_relay = path.relay.id if isinstance(path, RelayPath) else None
        try:
            self._control = await pipes.open_pipe(sock, self._link, Purpose.CONTROL, entropy)
        except BaseException:
            sock.close()
            raise
        self._tasks.start(self._listen(self._control), "control pipe")

    async def _listen(self, control: SealedPipe) -> None:
        try:
            while True:
                frame = await control.receive()
                if frame.type is not FrameType.CONTROL:
                    raise ProtocolError("a control pipe carries control messages only")
                await self._paced(frame)
                match link_control.decode_from_connector(frame.content):
                    case NameAnswer() as found:
                        self._names.answered(found)
                    case GrantAccepted() | GrantRefused() as answer:
                        if not self._presenting.locked() or self._answers.full():
                            raise ProtocolError("an answer to no grant")
                        self._answers.put_nowait(answer)
                    case Pong() as pong:
                        self._answered_at = asyncio.get_running_loop().time()
                        self._answered.set()
                        self._core.choice.reports(self.connector.id, pong.load)
                    case DatagramsOpened() | NoDatagrams() as opened:
                        self.datagrams.answered(opened)
                    case Drain():
                        logger.info("connector %s is being stopped: new flows go elsewhere", self.connector.name)
                        self.usable = False
        except (OSError, ProtocolError) as error:
            logger.debug("the control pipe with %s ended: %s", self.connector.name, error)
        finally:
            self.usable = False
            self._names.lost()
            self._warm.close()

    async def _paced(self, frame: Frame) -> None:
        """Return when a message may be handled: a connector that floods is read slowly, and others have their turns."""
        size = 1 + len(frame.content) // MESSAGE_UNIT_BYTES
        while wait := self._rate.take("", time.monotonic(), size):
            await asyncio.sleep(wait)
        await asyncio.sleep(0)

    async def ask_name(self, name: str, record_type: int) -> NameAnswer:
        """Return what the connector's resolvers say of a canonical name; raises FlowRefused when it cannot be asked."""
        assert self._control is not None
        return await self._names.ask(self._control, name, record_type)

    async def answers(self, seconds: float) -> bool:
        """Ask the connector whether it is there; returns whether it says so in time."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self._ask(begun)
        try:
            async with asyncio.timeout(seconds):
                while self._answered_at < begun:
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            return False
        return True

    def _ask(self, now: float) -> None:
        self._asked_at = now
        if self._control is not None:
            self._control.send_now(FrameType.CONTROL, link_control.encode(Ping()))

    def _tell(self, message: link_control.LinkMessage) -> bool:
        return self._control is not None and self._control.send_now(FrameType.CONTROL, link_control.encode(message))

    def _where(self) -> tuple[int, Any] | None:
        """Return family and address of the connector's UDP port, which has the number of the TCP port it was met at."""
        if not self.direct or self.punched is not None or self._control is None or self._control.closed:
            # A hole is one for TCP.
            return None
        try:
            return self._control.sock.family, self._control.sock.getpeername()
        except OSError:
            return None

    def _datagrams_over_relay(self) -> bool:
        return self.usable and link_control.RELAY_DATAGRAMS in self._names.features and bool(self.relay_paths())

    async def _datagram_pipe(self) -> tuple[SealedPipe, Leg]:
        return await relayed_pipe(self.relay_paths(), self.connector.id, self._link, GREETING_SECONDS)

    async def present_grant(self) -> None:
        """Present the newest grant, if it was not yet; raises FlowRefused when the connector does not take it."""
        async with self._presenting:
            token = self._core.grant_for(self.connector.remote_network).token
            if token == self._presented:
                return
            assert self._control is not None
            try:
                for message in link_control.present(token):
                    await self._control.send(FrameType.CONTROL, link_control.encode(message))
                async with asyncio.timeout(LINK_SECONDS):
                    answer = await self._answers.get()
            except OSError as error:
                self.usable = False
                raise LinkLost(f"connector {self.connector.name}: {error!s}") from error
            if isinstance(answer, GrantRefused):
                raise LinkLost(f"connector {self.connector.name} refused the grant: {answer.message}")
            self._names.features = frozenset(answer.features)
            self._presented = token
            self.usable = True

    # ---- pipes

    async def pipe(self) -> SealedPipe:
        """Return a pipe for one flow, warm where there is one; raises LinkLost."""
        now = asyncio.get_running_loop().time()
        if now - self._asked_at >= LOAD_SECONDS:
            self._ask(now)
        try:
            return await self._warm.next()
        except OSError as error:
            raise LinkLost(f"connector {self.connector.name}: {error}") from error

    async def _new_pipe(self) -> SealedPipe:
        try:
            sock, _ = await _connect(self._paths, self.connector.id)
            try:
                # A connector that hangs is still connected to by the kernel it listens with.
                async with asyncio.timeout(GREETING_SECONDS):
                    return await pipes.open_pipe(sock, self._link, Purpose.FLOW, entropy)
            except BaseException:
                sock.close()
                raise
        except (OSError, KlinketError) as error:
            raise LinkLost(f"connector {self.connector.name}: {error}") from error

    def give_back(self, pipe: SealedPipe) -> None:
        """Keep a pipe whose flow has ended cleanly for the next."""
        if self.usable:
            self._warm.give_back(pipe)
        else:
            pipe.close()

    async def aclose(self, *, forget: bool = False) -> None:
        """Close the link's own pipes (flows are their owners'); `forget`: the connector may forget it too."""
        self.usable = False
        self.datagrams.close()
        if forget and self._control is not None:
            self._control.send_now(FrameType.CONTROL, link_control.encode(link_control.CloseLink()))
        await self._tasks.aclose()
        self._warm.close()
        if self._control is not None:
            self._control.close()


async def _connect(paths: Sequence[Path], connector: int) -> tuple[socket.socket, Path]:
    """Return a connection on the first path that has one: those that failed lately last, the next beside one that takes long."""
    if not paths:
        raise ConnectionError("no way leads there")
    return await _connect_in_order(sorted(paths, key=lambda path: path.avoided), connector)


async def _connect_in_order(paths: Sequence[Path], connector: int) -> tuple[socket.socket, Path]:
    first, others = paths[0], paths[1:]

    async def on_first() -> tuple[socket.socket, Path]:
        return await first.connect(connector), first

    async def on_others() -> tuple[socket.socket, Path]:
        made = await _connect_in_order(others, connector)
        first.avoid()
        return made

    if not others:
        return await on_first()
    return await hedged(on_first, on_others, NEXT_PATH_SECONDS, lambda made: made[0].close(), _of_no_path)


def _of_no_path(error: Exception) -> bool:
    """Return whether an error is one that no other path would change."""
    return not isinstance(error, RelayError | DirectUnavailable)
