"""A running client: one session, its links, and flows for whoever asks (client.ports)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from klinket.client.attempts import Attempts, begin_first
from klinket.client.channel import ClientChannel
from klinket.client.core import ClientCore, Route
from klinket.client.flow import ClientDatagrams, ClientStream
from klinket.client.late_answer import LateAnswer
from klinket.client.link import ConnectorLink
from klinket.client.linking import Linker
from klinket.client.links import LinkSet
from klinket.client.login import Session, log_in, log_out
from klinket.client.names import ResourceNames
from klinket.client.opening import failure_of
from klinket.client.readiness import Readiness
from klinket.client.traffic import ClientTraffic
from klinket.domain.errors import (
    AssertionStale,
    AuthenticationFailed,
    ControllerUnreachable,
    FlowRefused,
    KlinketError,
    SessionOver,
)
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.resource import Resource
from klinket.net import forks
from klinket.net import pipe as pipes
from klinket.net.backoff import Backoff
from klinket.net.channel import controller_context, load_library
from klinket.net.clock import PeerClock
from klinket.net.copies import CopyWatch
from klinket.net.link import LinkInitiator
from klinket.net.pipe import SealedPipe
from klinket.net.tasks import TaskSet, first_of
from klinket.wire import control
from klinket.wire.key_file import KeyFile
from klinket.wire.pipe_messages import Failure

logger = logging.getLogger(__name__)

#: Seconds for the first login and configuration.
START_SECONDS = 30.0
_OF_THE_KEY = (FlowFailure.SERVICE_KEY_REVOKED, FlowFailure.SERVICE_KEY_EXPIRED)


class Client:
    """Implements ports.FlowOpener. `start` logs in; `aclose` ends the session."""

    def __init__(
        self,
        key_file: KeyFile,
        only: Sequence[str] = (),
        changed: Callable[[], None] = lambda: None,
        traffic: ClientTraffic | None = None,
    ) -> None:
        """`only`: what of the granted resources is used; the controller's grants are asked to be as narrow.

        `changed`: called after each configuration, with what is granted now.
        """
        self._key_file = key_file
        self._traffic = traffic or ClientTraffic()
        self._changed = changed
        #: Why the live channel is down, or None while it is up, or was never.
        self.channel_trouble: KlinketError | None = None
        self._context = controller_context(key_file.controller_ca)
        self._clock = PeerClock()
        self._core = ClientCore(only)
        self._backoff = Backoff()
        self._session: Session | None = None
        self._initiator: LinkInitiator | None = None
        #: A connector has ended a flow because of the key: the controller's own word, and `ended`, follow.
        self.end_is_near = False
        self._flows: set[ClientStream | ClientDatagrams] = set()
        self._configured = asyncio.Event()
        self._tasks = TaskSet("client")
        self._ended: KlinketError | None = None
        self.ended = asyncio.Event()
        self._copies = CopyWatch(self._machine_copied)
        self._channel = ClientChannel(
            f"https://{key_file.network}",
            self._context,
            self._clock,
            self._configure,
            self._renewed,
            self._copies.exchanged,
            only,
        )
        self._linker = Linker(self._core, self._clock.now, self._channel, self._install)
        self._link_set = LinkSet(self._linker, self._link_initiator, self._tasks, lambda: self._ended is not None)
        self._links = self._link_set.by_connector
        self.names = ResourceNames(self._core, self._links, self.link, self._clock.now)
        forks.watch(self)

    # ---- session

    async def start(self) -> None:
        """Log in and attach; returns with the first configuration. Raises AuthenticationFailed, ControllerUnreachable."""
        self._copies.start()
        await self._log_in()
        attached = self._tasks.start(self._stay_attached(), "channel")
        try:
            await first_of(self._configured, self.ended, timeout=START_SECONDS)
            if self._ended is not None:
                raise self._ended
            if not self._configured.is_set():
                raise ControllerUnreachable(f"no configuration from {self._key_file.network} within {START_SECONDS:.0f} s")
        except BaseException:
            attached.cancel()  # whoever tries again starts anew: two of them would replace each other's channel for ever
            await asyncio.gather(attached, return_exceptions=True)
            raise

    async def _log_in(self) -> None:
        logging_in = asyncio.ensure_future(log_in(self._key_file, self._context))
        try:
            await asyncio.sleep(0)  # it is on its way, in a thread
            load_library()
            self._session = await logging_in
        finally:
            logging_in.cancel()
        self._clock.set(self._session.time_ms)
        self._traffic.logins += 1

    async def _stay_attached(self) -> None:
        backoff = self._backoff
        while True:
            attached_at = time.monotonic()
            try:
                assert self._session is not None
                if self._session.copied:
                    raise SessionOver("the session was one of a machine that was copied")
                if self._session.expires_at_ms / 1000 < self._clock.now() + 5:
                    raise SessionOver("the session's certificate has ended")
                await self._channel.attach(self._session)
            except SessionOver as error:
                logger.info("%s; logging in again", error.message)
                await asyncio.sleep(backoff.next())
                if not await self._log_in_again():
                    return
            except KlinketError as error:
                if ends_for_good(error):
                    self._end(error)
                    return
                if time.monotonic() - attached_at > 30:
                    backoff.reset()
                delay = max(backoff.next(self._core.longest_wait(self._clock.now())), error.retry_after or 0.0)
                self.channel_trouble = error
                self._traffic.channel_losses += 1
                going_on = "; live flows go on" if self._configured.is_set() else ""
                logger.warning("%s%s; trying again in %.1f s", error, going_on, delay)
                await asyncio.sleep(delay)
            except Exception:
                # A defect, here or in what was sent. Without this task no revocation would be heard any more: it must not die.
                logger.exception("the channel failed")
                await asyncio.sleep(backoff.next())

    async def _log_in_again(self) -> bool:
        try:
            await self._log_in()
        except KlinketError as error:
            if ends_for_good(error):
                self._end(error)
                return False
            logger.warning("%s", error.message)
            await asyncio.sleep(error.retry_after or 0.0)
            return True
        self._initiator = None
        self._link_set.end_session("old link")
        return True

    def _machine_copied(self, reason: str) -> None:
        """Whoever runs on as the other copy has the same session: it ends, and this one begins a new one."""
        logger.warning("the session ends, a new one begins: %s", reason)
        pipes.forget_all_keys()
        for flow in list(self._flows):
            flow.cut(Failure(FlowFailure.RESET, reason))
        self._link_set.end_session("copied link")
        self._linker.forget()
        self._initiator = None
        if self._session is not None and not self._session.copied:
            self._session.copied = True
            self._tasks.start(log_out(self._key_file, self._session, self._context, self._clock.now()), "copied session")
        self._channel.abort()

    def forked(self) -> None:
        """Implements forks.Holder."""
        self._session = self._initiator = None
        self._links.clear()
        self._linker.forget()
        self._flows.clear()
        self._ended = SessionOver("this is the child of a process that has a session, and has none itself")
        self._channel.forked()

    def _end(self, error: KlinketError) -> None:
        """The session is over for good: every flow ends, new ones are refused with this reason."""
        logger.warning("the session is over: %s", error.message)
        self._ended = error
        failure = Failure(failure_of(error), error.message)
        for flow in list(self._flows):
            flow.cut(failure)
        self.ended.set()

    def _forget(self, flow: ClientStream) -> None:
        self._flows.discard(flow)
        if flow.summary is not None:
            self._traffic.bytes_sent += flow.summary.bytes_sent
            self._traffic.bytes_received += flow.summary.bytes_received
        self.end_is_near = self.end_is_near or (flow.failure is not None and flow.failure.failure in _OF_THE_KEY)

    @property
    def end_reason(self) -> KlinketError | None:
        """Return why the session is over, or None."""
        return self._ended

    def _renewed(self, message: control.CertificateRenewed) -> None:
        assert self._session is not None
        self._session.certificate = message.certificate
        self._session.access_token = message.access_token
        self._session.expires_at_ms = message.expires_at_ms
        self._initiator = None
        if self._configured.is_set():  # a link may have been refused for the certificate before
            self._link_set.follow(self._core.configuration, {flow.connector for flow in self._flows})

    def _configure(self, configuration: control.ClientConfiguration) -> None:
        self._core.configure(configuration)
        self._backoff.spread = min(configuration.spread_ms / 1000, control.MAX_SPREAD_SECONDS)
        self._configured.set()
        known = {connector.id: connector.jkt for connector in configuration.connectors}
        for id in list(self._links):
            link = self._links[id]
            if known.get(id) != link.connector.jkt:
                self._tasks.start(self._links.pop(id).aclose(), "removed connector, or one with another key")
            else:
                self._tasks.start(self._present(link), "present grant")
        self._link_set.follow(configuration, {flow.connector for flow in self._flows})
        self.channel_trouble = None
        self._changed()
        granted = {resource.id for resource in self._core.resources}
        for flow in [flow for flow in self._flows if flow.resource.id not in granted]:
            flow.cut(Failure(FlowFailure.CUT, "the resource is not granted any more"))
        for flow in [flow for flow in self._flows if flow.connector not in known]:
            flow.cut(Failure(FlowFailure.CUT, "the connector was removed"))

    async def _present(self, link: ConnectorLink) -> None:
        try:
            await link.present_grant()
        except FlowRefused as error:
            logger.info("%s", error.message)

    async def aclose(self) -> None:
        """End all flows and the session."""
        for flow in list(self._flows):
            flow.cut(Failure(FlowFailure.RESET))
        for link in list(self._links.values()):
            await link.aclose(forget=True)
        await self.names.aclose()
        await self._linker.aclose()
        self._copies.close()
        told = await self._channel.end_session()
        await self._tasks.aclose()
        if not told and self._session is not None and self._ended is None:
            try:
                await log_out(self._key_file, self._session, self._context, self._clock.now())
            except ControllerUnreachable as error:
                logger.info("the session was not ended at the controller, it ends by itself: %s", error.message)

    @property
    def session(self) -> str:
        """Return the id of the session, "" before there is one."""
        return "" if self._session is None else self._session.id

    @property
    def core(self) -> ClientCore:
        """Return what this client decides with."""
        return self._core

    @property
    def linker(self) -> Linker:
        """Return what opens links, and knows the ways to connectors."""
        return self._linker

    def now(self) -> float:
        """Return the controller's time in seconds since the epoch."""
        return self._clock.now()

    # ---- ports.FlowOpener

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Return what was granted."""
        return self._core.resources

    def resource_for(self, host: str) -> Resource | None:
        """Return the granted resource that serves this canonical host, or None."""
        return self._core.resource_for(host)

    def destination(self, wanted: str) -> Destination:
        """Return where RESOURCE[:PORT], as people write it, leads over TCP; raises FlowRefused, InvalidInput without a port."""
        return self._core.destination(wanted)

    def claims(self, host: str) -> bool:
        """Return whether a canonical host is granted, or was while this client runs."""
        return self._core.claims(host)

    async def open_stream(self, destination: Destination) -> ClientStream:
        """Open a TCP flow; returns when the resource has accepted, raises FlowRefused with its answer."""
        resource, pipe, link = await self._open(destination)
        stream = ClientStream(resource, pipe, link, self._forget)
        self._flows.add(stream)
        return stream

    async def open_early(self, destination: Destination, refused: Callable[[FlowRefused], None]) -> ClientStream:
        """Open a TCP flow without waiting for the resource: carry() sends at once (see ports)."""
        resource, pipe, link = await self._open(destination, early=True)
        choice, now, silent = self._core.choice, self._clock.now, self._link_set.silent
        answer = LateAnswer(link, resource, destination.host, choice, now, silent, self._tasks)
        stream = ClientStream(resource, pipe, link, self._forget, refused, answer)
        self._flows.add(stream)
        return stream

    async def open_datagrams(self, destination: Destination) -> ClientDatagrams:
        """Open a UDP association or an ICMP flow; raises FlowRefused."""
        resource, pipe, link = await self._open(destination)
        datagrams = ClientDatagrams(
            resource, pipe, link, self._flows.discard, seals=destination.protocol is TransportProtocol.UDP
        )
        self._flows.add(datagrams)
        return datagrams

    async def _open(self, destination: Destination, *, early: bool = False) -> tuple[Resource, SealedPipe, ConnectorLink]:
        """Try the connectors in order. Nothing of the program's was sent yet, so another may be tried."""
        if self._ended is not None:
            raise FlowRefused(failure_of(self._ended), self._ended.message)
        resource = self._core.decide(destination, self._clock.now())
        links = self._link_set
        routes = self._core.routes(resource, self._clock.now(), links.usable, destination.host)
        if early:
            pipe, link = await begin_first(
                routes, destination, resource, links.get, links.lost, self._core.choice, self._clock.now
            )
        else:
            pipe, link = await Attempts(
                routes, destination, resource, links.get, links.lost, links.silent, self._core.choice, self._clock.now
            ).open()
        if len(routes) > 1:
            links.keep_second(routes, link)
        return resource, pipe, link

    # ---- links

    async def link(self, route: Route) -> ConnectorLink:
        """Return the link with a route's connector, made if there is none; raises FlowRefused."""
        return await self._link_set.get(route)

    def _link_initiator(self) -> LinkInitiator:
        if self._initiator is None:
            assert self._session is not None
            authority = self._core.configuration.connector_authority
            self._initiator = LinkInitiator(self._session.certificate, self._session.key, authority)
        return self._initiator

    def _install(self, link: ConnectorLink) -> None:
        self._link_set.install(link)

    # ---- readiness

    @property
    def flow_count(self) -> int:
        """Return how many flows are open."""
        return len(self._flows)

    @property
    def link_count(self) -> int:
        """Return with how many connectors there is a link that can be used."""
        return sum(link.usable for link in self._links.values())

    async def networks(self) -> dict[Resource, FlowRefused | None]:
        """Ask a connector of each granted network without a link. A resource stands for its network; None: it is reached."""
        linked = {link.connector.remote_network for link in self._links.values() if link.usable}
        return await self._readiness().networks(linked)

    async def wait_ready(
        self, wanted: Sequence[str], timeout: float, missing_now: Callable[[FlowRefused, float], None] = lambda _, __: None
    ) -> None:
        """Wait until a connector of every granted network, and every wanted resource, answers (see Readiness.wait)."""
        await self._readiness().wait(wanted, timeout, missing_now)

    def _readiness(self) -> Readiness:
        return Readiness(self._core, self.link, self.open_stream, self._clock.now, lambda: self._ended)


def ends_for_good(error: KlinketError) -> bool:
    """Return whether waiting changes nothing for a client that was let in before: clocks are set right again, keys are not."""
    return isinstance(error, AuthenticationFailed) and not isinstance(error, AssertionStale)
