"""The capture of a whole machine: puts the parts together, claims, follows, undoes."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from klinket.client.capture import synthetic
from klinket.client.capture.answers import Answers
from klinket.client.capture.connects import HeldConnects
from klinket.client.capture.datagrams import CapturedDatagrams
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.echoes import CapturedEchoes
from klinket.client.capture.host import addresses, claim, netlink, routes, rules, tools, undo, upkeep
from klinket.client.capture.host import sockets as host_sockets
from klinket.client.capture.host.fast import FastResources
from klinket.client.capture.host.names import CapturedNames
from klinket.client.capture.host.settings import HostSettings
from klinket.client.capture.host.sockets import CaptureSockets
from klinket.client.capture.host.system_resolvers import SystemResolvers
from klinket.client.capture.host.watched import Watcher
from klinket.client.capture.machine import CaptureState
from klinket.client.capture.resolver import AnswerRules, OwnAnswers
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.client.ports import FlowOpener
from klinket.domain.address import ResourceAddress
from klinket.domain.errors import CaptureImpossible, FlowRefused, KlinketError
from klinket.domain.resource import Resource
from klinket.net import sockets

logger = logging.getLogger(__name__)

#: Seconds between looks at the system's resolvers and at the rules.
LOOK_SECONDS = 1.0
#: Looks between those at the routing rules.
ROUTES_TURNS = 5
#: UDP associations at a time, per family, of all and of one source address.
MAX_ASSOCIATIONS = 4096
MAX_ASSOCIATIONS_PER_SOURCE = 1024
_OWN_ROUTES = frozenset([*(str(name) for name in addresses.SYNTHETIC), *addresses.STUBS])
_HAS_IPV6 = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")


class HostCapture:
    """Implements machine.MachineCapture. `told` gets a line for each refused flow and for what people should know."""

    def __init__(self, client: FlowOpener, told: Callable[[str], None], settings: HostSettings = HostSettings()) -> None:
        self._client = client
        self._told = told
        self._settings = settings
        self._names = SyntheticAddresses(halves=True, offset=secrets.randbelow(synthetic.FAST_RANGE.num_addresses))
        self._remembered = addresses.Remembered()
        self._fast = FastResources(settings.fast)
        self._resolvers = SystemResolvers(settings.resolver_files)
        self._captured: frozenset[str] = frozenset()
        self._captured_fast: frozenset[str] = frozenset()
        self._asked: frozenset[str] = frozenset()
        self._routed: frozenset[str] = frozenset()
        self._versions: Sequence[int] = tools.VERSIONS
        self._behind = False
        self._stack = AsyncExitStack()
        self._changing = asyncio.Lock()
        self._watcher: Watcher | None = None
        self._layout: rules.Layout | None = None
        self._listing = ""
        self._generation = 0
        self._problem = ""
        self._started = False

    # ---- start

    async def start(self) -> None:
        """Claim rules, routes and DNS; raises CaptureImpossible and then leaves nothing behind.

        What a klinket that died still rejects is taken over, without a moment in between.
        """
        try:
            await self._start()
        except OSError as error:
            await self._stack.aclose()
            raise CaptureImpossible(f"cannot capture this machine: {error}", hint="run as root") from error
        except BaseException:
            await self._stack.aclose()
            raise
        self._started = True

    async def _start(self) -> None:
        for command in (tools.NFT, tools.ip(4)):
            tools.find(command)
        held = await asyncio.to_thread(claim.take)
        self._stack.callback(os.close, held)
        self._stack.callback(tools.inherited.remove, held)
        tools.inherited.append(held)
        left = await asyncio.to_thread(undo.left_resources)
        self._remembered.take({one: ResourceAddress.parse(one).network for one in left if "-" not in one})  # type: ignore[misc]
        families = [CaptureSockets.make(socket.AF_INET)]
        self._stack.callback(families[0].close)
        ipv6 = _ipv6()
        self._versions = tools.VERSIONS if ipv6 else (4,)
        if ipv6:
            families.append(CaptureSockets.make(socket.AF_INET6))
            self._stack.callback(families[1].close)
        layout = rules.Layout(
            ports=families[0].ports,
            ports6=families[1].ports if ipv6 else None,
            holds=True,
            native_queue=True,
            users=self._settings.users,
            gateway=bool(self._settings.sources),
        )
        self._resolvers.look()
        self._asked = self._resolvers.captured
        self._captured = self._remembered.captured()
        self._captured_fast = self._fast.captured(())
        self._watcher = watcher = Watcher(
            [
                (tools.find(tools.NFT), rules.closed(self._settings.users, gateway=layout.gateway)),
                *((tools.find(tools.ip(version, force=True)), routes.undo(version)) for version in tools.VERSIONS),
            ]
        )
        self._stack.push_async_callback(watcher.aclose)  # the last of all: what fails before is undone by the watcher
        watcher.start()
        self._stack.push_async_callback(self._undo)
        self._stack.callback(sockets.mark_own, 0)
        sockets.mark_own(rules.OWN)
        self._serve(families, await self._load(layout))
        await self._claim_routes()
        looking = asyncio.get_running_loop().create_task(self._look(), name="host capture")
        self._stack.callback(looking.cancel)

    async def _load(self, best: rules.Layout) -> rules.Layout:
        """Load the table in the best way this kernel knows; returns the layout that is in place."""
        refused: CaptureImpossible | None = None
        for layout in rules.layouts(best):
            try:
                await self._load_as(layout)
            except CaptureImpossible as error:
                refused = error
                continue
            if not layout.holds:
                self._told("klinket: this kernel cannot hold connects: all are accepted at once, and reset if refused")
            if best.ports6 is not None and layout.ports6 is None:
                self._told("klinket: this kernel cannot capture IPv6: IPv6 to resources is rejected")
            return layout
        assert refused is not None
        raise refused

    async def _load_as(self, layout: rules.Layout) -> None:
        contents: dict[str, Sequence[str]] = {
            "resources": sorted(self._captured),
            "fast": sorted(self._captured_fast),
            "sources": self._settings.sources,
            "resolvers": sorted(self._asked),
        }
        await tools.run_async(tools.NFT, rules.table(layout, contents))
        if layout.holds and not layout.native_queue:
            for chain, number in rules.QUEUES.items():
                await _kernel(netlink.change_rules, netlink.queue_request(rules.NAME, chain, number))
        self._layout = layout
        self._listing = await asyncio.to_thread(upkeep.listing)

    async def _claim_routes(self) -> None:
        for version in self._versions:
            await tools.run_async(tools.ip(version, force=True), routes.undo(version))
            await tools.run_async(tools.ip(version), routes.claim(version) + claim.signed())
        self._routed = frozenset()
        await self._follow_routes(self._captured | self._asked)

    def _serve(self, families: Sequence[CaptureSockets], layout: rules.Layout) -> None:
        doorway = Doorway(self._client, self._names, self._told, only_klinkets=True)
        queue = None
        if layout.holds:
            queue = host_sockets.queue()
            self._stack.callback(queue.close)
        connects = HeldConnects(queue, [one.listener for one in families], doorway, rules.QUEUE, self._is_fast)
        own = OwnAnswers(
            self._client,
            self._names,
            AnswerRules(
                ipv6=layout.ports6 is not None, hides_ipv6=False, is_fast=self._fast.is_fast_name, never=self._settings.own_hosts
            ),
        )
        parts: list[HeldConnects | CapturedDatagrams | CapturedEchoes | CapturedNames] = [connects]
        if layout.holds:
            answers = host_sockets.echo_answers([one.raw.family for one in families])
            echo_queue = host_sockets.queue()
            for sock in (echo_queue, *answers):
                self._stack.callback(sock.close)
            parts.append(CapturedEchoes(echo_queue, rules.ECHO_QUEUE, answers, doorway))
        for one in families:
            limits = MAX_ASSOCIATIONS, MAX_ASSOCIATIONS_PER_SOURCE
            parts.append(CapturedDatagrams(one.datagrams, Answers(one.raw), doorway, *limits))
            parts.append(
                CapturedNames(one.dns, one.dns_raw, one.dns_listener, own, lambda: self._resolvers.of_libc, self._is_granted)
            )
        for part in parts:
            part.start()
            self._stack.push_async_callback(part.aclose)

    def _is_granted(self, address: str) -> bool:
        try:
            return self._client.claims(address)
        except FlowRefused:
            return False

    def _is_fast(self, address: str) -> bool:
        return self._layout is None or not self._layout.holds or self._fast.is_fast_address(address)

    # ---- follow

    async def follow(self, resources: Sequence[Resource]) -> None:
        """Take over what is granted now; raises CaptureImpossible when the kernel refuses the change."""
        granted = {
            resource.address.canonical: resource.address.network for resource in resources if resource.address.network is not None
        }
        async with self._changing:
            self._fast.follow(resources)
            fast = self._fast.captured(resources)
            self._behind = self._remembered.take(granted) or self._behind  # a change that was refused is tried again
            if not self._behind and fast == self._captured_fast:
                return
            captured = self._remembered.captured() if self._behind else self._captured
            changes = {
                "resources": addresses.difference(self._captured, captured),
                "fast": addresses.difference(self._captured_fast, fast),
            }
            routing = self._follow_routes(captured | self._asked)
            await asyncio.gather(routing, _kernel(netlink.change_rules, _elements(changes, intervals=True)))
            self._captured, self._captured_fast, self._behind = captured, fast, False

    async def _follow_routes(self, captured: frozenset[str]) -> None:
        """Give everything captured a route for where there is no other; klinket's own ranges have theirs."""
        wanted = captured - _OWN_ROUTES
        change = addresses.difference(self._routed, wanted)
        index = socket.if_nametoindex(routes.LINK)
        for version, source in zip(self._versions, (addresses.SOURCE, addresses.SOURCE6), strict=False):
            removed, added = (rules.family(one, version) for one in (change.removed, change.added))
            await _kernel(netlink.change_routes, netlink.routes_request(routes.FALLBACK, index, source, removed, added))
        self._routed = wanted

    async def _look(self) -> None:
        """Follow the system's resolvers, and put back what somebody has taken away."""
        turn = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            turn += 1
            try:
                if (generation := netlink.generation()) != self._generation:
                    await self._restore_rules()
                    self._generation = generation  # what changes meanwhile is seen the next time
                if turn % ROUTES_TURNS == 0:
                    await self._restore_routes()
                if self._resolvers.look():
                    await self._follow_resolvers()
                self._problem = ""
            except (KlinketError, OSError) as error:
                self._problem = f"{error}"
                logger.error("%s", error)

    async def _restore_rules(self) -> None:
        assert self._layout is not None
        async with self._changing:
            if await asyncio.to_thread(upkeep.listing) != self._listing:
                self._told("klinket: somebody has changed klinket's rules (a firewall that was reloaded?): they are put back")
                await self._load_as(self._layout)

    async def _restore_routes(self) -> None:
        async with self._changing:
            missing = [await asyncio.to_thread(upkeep.missing_preferences, version) for version in self._versions]
            if any(missing):
                self._told("klinket: somebody has taken klinket's routing rules away (a network daemon?): they are put back")
                await self._claim_routes()

    async def _follow_resolvers(self) -> None:
        async with self._changing:
            change = addresses.difference(self._asked, self._resolvers.captured)
            await _kernel(netlink.change_rules, _elements({"resolvers": change}, intervals=False))
            self._asked = self._resolvers.captured
            await self._follow_routes(self._captured | self._asked)

    # ---- state and end

    def state(self) -> CaptureState:
        """Return what is in place."""
        in_place = self._started and not self._problem
        problems = [self._problem] if self._problem else []
        if self._started and self._watcher is not None and self._watcher.pid is None:
            problems.append("nobody watches this process: should it die, names do not resolve until klinket is started again")
        return CaptureState(in_place, in_place, tuple(problems))

    async def _undo(self) -> None:
        await asyncio.to_thread(undo.undo_claimed)

    async def aclose(self) -> None:
        """Undo everything; flows end with a reset."""
        self._started = False
        await self._stack.aclose()


def _ipv6() -> bool:
    try:
        return _HAS_IPV6.read_text().strip() == "0"
    except OSError:
        return False


def _elements(changes: dict[str, addresses.Difference], *, intervals: bool) -> bytes:
    return netlink.elements_request(
        rules.NAME,
        [
            (f"{name}{version}", rules.family(change.removed, version), rules.family(change.added, version))
            for name, change in changes.items()
            for version in tools.VERSIONS
        ],
        intervals=intervals,
    )


async def _kernel(change: Callable[[bytes], None], request: bytes) -> None:
    """Have the kernel make a change; raises CaptureImpossible."""
    if not request:
        return
    try:
        await asyncio.to_thread(change, request)
    except OSError as error:
        raise CaptureImpossible(error.strerror or str(error), hint="stop and start klinket") from error
