"""A link with one connector: its control pipe with the grant, and warm pipes for flows."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from klinket.client.core import ClientCore
from klinket.client.punching import PunchedPath
from klinket.client.sealed_datagrams import SealedDatagrams
from klinket.domain.errors import FlowRefused, KlinketError, ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ConnectorId, Thumbprint
from klinket.net import pipe as pipes
from klinket.net.clock import entropy
from klinket.net.direct_path import DirectPath, DirectUnavailable
from klinket.net.link import LinkInitiator
from klinket.net.pipe import SealedPipe
from klinket.net.relay_path import RelayPath
from klinket.net.tasks import TaskSet
from klinket.wire import link_control
from klinket.wire.control import ConnectorEntry
from klinket.wire.identity import ConnectorIdentity
from klinket.wire.link import Link
from klinket.wire.link_control import DatagramsOpened, Drain, GrantAccepted, GrantRefused, NoDatagrams
from klinket.wire.pipe import FrameType, Purpose
from klinket.wire.relay import RelayError

logger = logging.getLogger(__name__)

#: Warm pipes kept at the most, and seconds after which an unused one is closed.
MAX_WARM = 32
WARM_SECONDS = 60.0
#: Seconds to make a link and have the grant accepted.
LINK_SECONDS = 10.0
#: Part of a link's life after which it is replaced.
REPLACE_AT = 0.5

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
        self._answers: asyncio.Queue[GrantAccepted | GrantRefused] = asyncio.Queue()
        self._presenting = asyncio.Lock()
        self._presented = ""
        self._warm: deque[tuple[SealedPipe, float]] = deque()
        self._wanted_warm = 0
        self._warming = 0
        self._tasks = TaskSet(f"link with {connector.name}")
        #: Sealed datagrams of UDP flows, beside the pipes.
        self.datagrams = SealedDatagrams(link, self._tell, self._where)
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
                sock = await _connect(paths, connector.id)
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
        sock = await _connect(self._paths, self.connector.id)
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
                match link_control.decode_from_connector(frame.content):
                    case GrantAccepted() | GrantRefused() as answer:
                        self._answers.put_nowait(answer)
                    case DatagramsOpened() | NoDatagrams() as opened:
                        self.datagrams.answered(opened)
                    case Drain():
                        logger.info("connector %s is being stopped: new flows go elsewhere", self.connector.name)
                        self.usable = False
        except (OSError, ProtocolError) as error:
            logger.debug("the control pipe with %s ended: %s", self.connector.name, error)
        finally:
            self.usable = False
            self._drop_warm()

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
            self._presented = token
            self.usable = True

    # ---- pipes

    async def pipe(self) -> SealedPipe:
        """Return a pipe for one flow, warm where there is one; raises LinkLost."""
        while self._warm:
            warm, since = self._warm.pop()  # last in, first out: its buffers and window are warm
            if not warm.closed and time.monotonic() - since < WARM_SECONDS and _silent(warm.sock):
                self._replenish()
                return warm
            warm.abort()
        self._wanted_warm = min(MAX_WARM, max(1, self._wanted_warm * 2))
        self._replenish()
        return await self._new_pipe()

    async def _new_pipe(self) -> SealedPipe:
        try:
            sock = await _connect(self._paths, self.connector.id)
            try:
                return await pipes.open_pipe(sock, self._link, Purpose.FLOW, entropy)
            except BaseException:
                sock.close()
                raise
        except (OSError, KlinketError) as error:
            raise LinkLost(f"connector {self.connector.name}: {error}") from error

    def give_back(self, pipe: SealedPipe) -> None:
        """Keep a pipe whose flow has ended cleanly for the next."""
        if self.usable and len(self._warm) < MAX_WARM:
            self._warm.append((pipe, time.monotonic()))
        else:
            pipe.close()

    def _replenish(self) -> None:
        while self.usable and len(self._warm) + self._warming < self._wanted_warm:
            self._warming += 1
            self._tasks.start(self._warm_one(), "warm pipe")

    async def _warm_one(self) -> None:
        try:
            pipe = await self._new_pipe()
        except KlinketError as error:
            self._wanted_warm = 0
            logger.debug("no warm pipe: %s", error.message)
            return
        finally:
            self._warming -= 1
        self.give_back(pipe)

    def _drop_warm(self) -> None:
        while self._warm:
            self._warm.pop()[0].close()

    async def aclose(self, *, forget: bool = False) -> None:
        """Close the link's own pipes (flows are their owners'); `forget`: the connector may forget it too."""
        self.usable = False
        self.datagrams.close()
        if forget and self._control is not None:
            self._control.send_now(FrameType.CONTROL, link_control.encode(link_control.CloseLink()))
        await self._tasks.aclose()
        self._drop_warm()
        if self._control is not None:
            self._control.close()


def _silent(sock: socket.socket) -> bool:
    """Return whether an unused pipe is still open: nothing may have come on it."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return True
    except OSError:
        return False
    return False


async def _connect(paths: Sequence[Path], connector: int) -> socket.socket:
    failure: RelayError | DirectUnavailable | None = None
    for path in paths:
        try:
            return await path.connect(connector)
        except (RelayError, DirectUnavailable) as error:
            failure = error
    raise failure or ConnectionError("no way leads there")
