"""The daemon: a session for a whole machine, its capture and proxies, and the control socket (composition in serve.py)."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence

from klinket.client.capture.machine import MachineCapture
from klinket.client.capture.proxy import Proxy, speak_http, speak_socks
from klinket.client.daemon import former, protocol
from klinket.client.daemon.control_server import ControlServer
from klinket.client.daemon.keeper import Keeper
from klinket.client.daemon.machine import Machine
from klinket.client.daemon.paths import Paths
from klinket.client.daemon.protocol import Answer, NetworkRow, Request, ResourceRow, StatusReport
from klinket.client.daemon.sessions import Sessions, is_usable
from klinket.client.daemon.settings import Settings
from klinket.client.daemon.states import FINAL, Facts, State, Verdict, guarded, judge
from klinket.domain.errors import (
    CaptureImpossible,
    ControllerUnreachable,
    FlowRefused,
    InvalidInput,
    KlinketError,
    ServiceKeyInvalid,
)
from klinket.domain.flow import FlowFailure
from klinket.domain.resource import Resource
from klinket.net.sockets import HostPort
from klinket.net.tasks import TaskSet, first_of
from klinket.wire.key_file import KeyFile
from klinket.wire.version import PRODUCT_VERSION

logger = logging.getLogger(__name__)

#: Seconds between looks at connectors: the first after one is missing, which then double, and while none is.
ASK_SECONDS = 0.25
LOOK_SECONDS = 2.0
#: Seconds that one look may take.
NETWORKS_SECONDS = 12.0
#: Seconds a `wait` may take.
MAX_WAIT_SECONDS = 86_400.0

_WAIT_STEP_SECONDS = 0.05


class Daemon:
    """`key`: None until one is set up. `capture`: makes the machine's capture, None for none. `reread`: the key set up now.

    `proxy_token`: what programs must show to the proxies; None: nothing.
    """

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        key: KeyFile | None,
        capture: Callable[[Sessions], MachineCapture] | None,
        reread: Callable[[], KeyFile | None],
        proxy_token: str | None = None,
    ) -> None:
        self._proxy_token = proxy_token
        self._paths = paths
        self._settings = settings
        self._reread = reread
        self._granted_changed = asyncio.Event()
        self.sessions = Sessions(self._changed, former.read(paths.former_file))
        self._kept: tuple[Resource, ...] | None = None
        self.keeper = Keeper(self.sessions)
        self._machine = Machine(capture(self.sessions), self._granted) if capture is not None else None
        self._networks: list[NetworkRow] | None = None
        self._proxies: list[Proxy] = []
        self._listening: list[str] = []
        self._server = ControlServer(self._answer)
        self._tasks = TaskSet("daemon")
        self._since = time.time()
        self._stopping = False
        self.stop = asyncio.Event()
        if key is not None:
            self.keeper.use(key)

    # ---- life

    async def run(self) -> None:
        """Serve until `stop` is set, and leave nothing behind; raises what ended it otherwise."""
        try:
            self._listen()
            self._server.listen(self._paths.socket)
            work = [self._tasks.start(self.keeper.run(), "session"), self._tasks.start(self._look_at_networks(), "connectors")]
            if self._machine is not None:
                work.append(self._tasks.start(self._machine.run(), "capture"))
            for task in work:
                task.add_done_callback(lambda _: self.stop.set())  # without one of them there is no daemon: better none than half
            await self.stop.wait()
            for task in work:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        finally:
            self._stopping = True
            for proxy in self._proxies:
                await proxy.aclose()
            await self._tasks.aclose()
            if self._machine is not None:
                await self._machine.aclose()
            await self.sessions.aclose()
            await self._server.aclose()
            former.forget(self._paths.former_file)

    def _listen(self) -> None:
        for address, speak, name in (
            (self._settings.http_proxy, speak_http, "http"),
            (self._settings.socks, speak_socks, "socks5"),
        ):
            if address:
                proxy = Proxy(self.sessions, speak, token=self._proxy_token)
                self._proxies.append(proxy)
                try:
                    self._listening.append(f"{name}://{proxy.listen(HostPort.parse(address))}")
                except OSError as error:
                    raise InvalidInput(f"{name} proxy", f"cannot listen on {address}: {error.strerror}") from error

    def _changed(self) -> None:
        self._granted_changed.set()
        granted = tuple(self.sessions.resources) if self.sessions.current is not None else None
        if granted is not None and granted != self._kept and not self._stopping:
            self._kept = granted
            self._tasks.start(asyncio.to_thread(former.keep, self._paths.former_file, granted), "keep what is granted")
        if self._machine is not None:
            self._machine.changed()

    def _granted(self) -> Sequence[Resource] | None:
        return self.sessions.resources if self.sessions.current is not None else None

    async def _look_at_networks(self) -> None:
        """Keep a link with a connector of each granted network, and know where there is none."""
        delay = ASK_SECONDS / 2
        while True:
            self._granted_changed.clear()
            client = self.sessions.current
            if client is not None and not client.ended.is_set():
                try:
                    async with asyncio.timeout(NETWORKS_SECONDS):
                        found = await client.networks()
                    self._networks = [_row(resource.name, problem) for resource, problem in found.items()]
                except Exception as error:  # also a defect: without this task nobody would know what is reached
                    if not isinstance(error, TimeoutError):
                        logger.exception("connectors cannot be asked")
                    self._networks = [NetworkRow(resource="", reached=False, problem="no connector answers in time")]
            missing = self._networks is None or any(not row.reached for row in self._networks)
            delay = min(LOOK_SECONDS, delay * 2) if missing else LOOK_SECONDS
            await first_of(self._granted_changed, timeout=delay)
            if self._granted_changed.is_set() or not missing:
                delay = ASK_SECONDS / 2

    # ---- what is told

    def verdict(self) -> Verdict:
        """Return the state in a word, with its reason."""
        client = self.sessions.current
        machine = self._machine
        return judge(
            Facts(
                has_key=self.keeper.key_file is not None,
                stopping=self._stopping or self.stop.is_set(),
                trouble=self.keeper.trouble or (client.end_reason or client.channel_trouble if client is not None else None),
                configured=client is not None and is_usable(client),
                capture_wanted=machine is not None,
                capture_failed=machine.failed if machine is not None else None,
                capture=machine.state if machine is not None else None,
                networks=self._networks,
            )
        )

    def status(self) -> StatusReport:
        """Return everything `klinket status` tells."""
        verdict = self.verdict()
        say = str if verdict.state is State.ONLINE else guarded
        client, key, machine = self.sessions.current, self.sessions.key_file or self.keeper.key_file, self._machine
        capture = machine.state if machine is not None else None
        away = client.channel_trouble if client is not None else self.keeper.trouble
        problems = list(capture.problems) if capture is not None else []
        if self.keeper.trouble is not None and client is not None and is_usable(client):
            problems.append(f"the newest key is not in use: {self.keeper.trouble}")
        return StatusReport(
            state=verdict.state.value,
            reason=say(verdict.reason),
            next_step=say(verdict.next_step),
            version=PRODUCT_VERSION,
            pid=os.getpid(),
            since=self._since,
            network=key.network if key is not None else "",
            service_account=key.service_account_id if key is not None else "",
            key=key.key_id if key is not None else "",
            key_expires_at=key.expires_at if key is not None else None,
            session=client.session if client is not None else "",
            controller=say(f"away: {away.message}") if away is not None else "attached" if client is not None else "not yet",
            capture="on" if machine is not None else "off",
            rules=capture is not None and capture.rules,
            dns=capture is not None and capture.dns,
            proxies=self._listening,
            networks=[
                NetworkRow(resource=say(row.resource), reached=row.reached, problem=say(row.problem))
                for row in self._networks or []
            ],
            resources=len(self.sessions.resources),
            flows=self.sessions.flow_count,
            retiring_sessions=self.sessions.retiring_count,
            problems=[say(problem) for problem in problems],
        )

    async def _answer(self, request: Request, user: int) -> Answer:
        match request.verb:
            case "status":
                return Answer(version=protocol.VERSION, ok=True, status=self.status())
            case "resources":
                rows = [
                    ResourceRow(name=one.name, address=one.address.text, alias=one.alias, visible=one.is_visible)
                    for one in self.sessions.resources
                ]
                return Answer(version=protocol.VERSION, ok=True, resources=rows)
            case "wait":
                served = self._settings.users
                if request.resources and served and user not in (0, os.geteuid(), *served):
                    raise protocol.NeedsRoot("this daemon serves some users, and resources are asked for those only")
                await self.wait(request.resources, min(max(0.0, request.timeout), MAX_WAIT_SECONDS))
                return Answer(version=protocol.VERSION, ok=True, status=self.status())
            case "reload":
                return Answer(version=protocol.VERSION, ok=True, message=await self.reload())
            case _:
                self.stop.set()
                return Answer(version=protocol.VERSION, ok=True, message="the daemon is ending")

    async def wait(self, resources: Sequence[str], timeout: float) -> None:
        """Wait until the state is `online` and each resource answers (with :PORT it is dialled); raises why not."""
        deadline = time.monotonic() + timeout
        while (verdict := self.verdict()).state is not State.ONLINE:
            if verdict.state in FINAL or time.monotonic() >= deadline:
                raise self._why(verdict, timeout)
            await asyncio.sleep(_WAIT_STEP_SECONDS)
        client = self.sessions.current
        if resources and client is not None:
            await client.wait_ready(resources, max(0.0, deadline - time.monotonic()))

    def _why(self, verdict: Verdict, timeout: float) -> KlinketError:
        client = self.sessions.current
        # The session's own end is known a moment before the keeper has noted it.
        trouble = self.keeper.trouble or (client.end_reason if client is not None else None)
        if trouble is not None and verdict.reason == trouble.message:
            return trouble
        told = f"{verdict.state.value}: {verdict.reason}"
        match verdict.state:
            case State.UNINITIALIZED:
                return ServiceKeyInvalid(told, hint=verdict.next_step)
            case State.CAPTURE_IMPOSSIBLE | State.RULES_MISSING | State.DNS_MISSING:
                return CaptureImpossible(told, hint=verdict.next_step)
            case State.NO_CONNECTOR:
                return FlowRefused(FlowFailure.NO_CONNECTOR, told, hint=verdict.next_step)
            case State.OFFLINE | State.AUTHENTICATING:
                return ControllerUnreachable(told)
            case _:
                return FlowRefused(FlowFailure.TIMED_OUT, f"not ready within {timeout:.0f} s: {told}", hint=verdict.next_step)

    async def reload(self) -> str:
        """Take the key that is set up now over; returns what came of it, raises why it is not used."""
        key = self._reread()
        if key is None:
            return "there is no key file: nothing was changed"
        taken = self.keeper.use(key)
        try:
            async with asyncio.timeout(protocol.RELOAD_SECONDS):
                return await asyncio.shield(taken)
        except TimeoutError:
            trouble = self.keeper.trouble
            raise ControllerUnreachable(
                f"the new key is not in use yet: {trouble.message if trouble else 'the controller has not answered'}",
                hint="the daemon goes on trying; klinket status -v",
            ) from None


def _row(resource: str, problem: KlinketError | None) -> NetworkRow:
    return NetworkRow(resource=resource, reached=problem is None, problem=str(problem) if problem is not None else "")
