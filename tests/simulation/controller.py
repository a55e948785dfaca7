"""The simulated controller: the real store on a real file, trust, dispatch, logins, enrolments and live channels.

What is not here is HTTP, TLS and threads. It may be killed at any moment, and begins anew from what is on disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from sqlalchemy import Engine

from klinket.controller import trust
from klinket.controller.app.ports import Transaction
from klinket.controller.channels import Channels
from klinket.controller.dispatch import Dispatch
from klinket.controller.enrolment import Enrolments
from klinket.controller.head_guard import HeadGuard
from klinket.controller.login import Logins
from klinket.controller.peers import Peers
from klinket.controller.punching import Punching
from klinket.controller.sealing import MasterKey
from klinket.controller.store import sqlite
from klinket.controller.store.engine import SqlStore, _Job
from klinket.controller.store.sqlite import SqliteBackend
from klinket.controller.trust import KeyPurpose, Trust
from klinket.wire.cut_token import sign_cut
from klinket.wire.key_file import LOGIN_PATH
from klinket.wire.paths import LOGOUT_PATH
from tests.simulation.network import Connection, Network

T = TypeVar("T")
NAME = "controller"
NETWORK = "acme"
URL = "https://klinket.internal:8443"
#: Seconds a grant lives here: short, so that a run sees many.
GRANT_SECONDS = 10


class KeptStatements(SqliteBackend):
    """The real database, but for what depends on no file: compiled statements outlive each life of each controller."""

    _kept: Engine | None = None

    def __init__(self, path: Path) -> None:
        true = sqlite._engine

        def engine(*args: Any, **more: Any) -> Engine:
            made = true(*args, **more)
            kept = KeptStatements._kept = KeptStatements._kept or made
            made.dialect, made._compiled_cache = kept.dialect, kept._compiled_cache
            return made

        with patch.object(sqlite, "_engine", engine):
            super().__init__(path)


class InlineStore(SqlStore):
    """The real store whose writer thread stays idle: changes are made in the caller's turn, at a moment that the seed chose."""

    def __init__(self, backend: SqliteBackend, clock: Callable[[], float], delay: Callable[[], float]) -> None:
        super().__init__(backend, clock)
        self._delay = delay

    async def write(self, change: Callable[[Transaction], T]) -> T:
        """Run a change, durable when this returns; whoever is killed on the way may not know whether it was made."""
        await asyncio.sleep(self._delay())
        job = _Job(change)
        self._commit([job])
        await asyncio.sleep(self._delay())
        return job.future.result()  # type: ignore[no-any-return]

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """Run a query on the state of one moment."""
        await asyncio.sleep(self._delay())
        result = self._read(query)
        await asyncio.sleep(self._delay())
        return result


async def _keep_nothing(_: Controller) -> None:
    """Do nothing."""


class Controller:
    """`database`: its file. `now`: true time in seconds since the epoch, which is what the controller's clock shows."""

    def __init__(
        self,
        database: Path,
        master: MasterKey,
        network: Network,
        now: Callable[[], float],
        entropy: Callable[[int], bytes],
        delay: Callable[[], float],
        *,
        grant_seconds: int = GRANT_SECONDS,
        housekeeping: Callable[[Controller], Coroutine[Any, Any, None]] = _keep_nothing,
    ) -> None:
        """`housekeeping`: what it does by itself from its start on."""
        self._grant_seconds = grant_seconds
        self._housekeeping = housekeeping
        self._database = database
        self._master = master
        self._network = network
        self._now = now
        self._entropy = entropy
        self._delay = delay
        self._serving: set[asyncio.Task[None]] = set()
        self._connections: list[Connection] = []
        self.up = False
        self.store: InlineStore
        self.trust: Trust
        self.peers: Peers
        self.logins: Logins
        self.enrolments: Enrolments
        self._dispatch: Dispatch
        self._channels: Channels

    async def start(self) -> None:
        """Begin from what is on disk."""
        self.store = InlineStore(KeptStatements(self._database), self._now, self._delay)
        self.trust = await trust.load_or_make(self.store, self._master, NETWORK, self._now, self._entropy)
        self.store.use_cut_signer(
            lambda cut: sign_cut(self.trust.signers[KeyPurpose.CUT], cut, network=NETWORK), self._grant_seconds
        )
        self.peers = Peers()
        self._dispatch = Dispatch(self.store, self.trust, self.peers, self._now, self._grant_seconds)
        self._channels = Channels(
            self.store,
            self.trust,
            self.peers,
            self._dispatch,
            HeadGuard(self.trust),
            Punching(False, time.monotonic, self._entropy),
            self._now,
            self._entropy,
        )
        self.logins = Logins(
            self.store, self.trust, URL + LOGIN_PATH, URL + LOGOUT_PATH, self._now, self._entropy, lambda: self.peers.clients
        )
        self.enrolments = Enrolments(self.store, self.trust, self._now)
        await self._dispatch.start()
        self.up = True
        self.do(lambda: self._housekeeping(self))

    async def kill(self) -> None:
        """End at once: nothing is written any more, and whoever is connected is reset."""
        self.up = False
        tasks = list(self._serving)
        for task in tasks:
            task.cancel()
        await self._dispatch.aclose()
        self.logins.unproven.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self._connections:
            await connection.server.close()
        self._connections.clear()
        self.store.close()

    def connect(self, client: str, address: str) -> Connection:
        """Serve a new live channel."""
        connection = Connection(self._network, client, NAME, address)
        self._connections.append(connection)
        task = asyncio.ensure_future(self._channels.serve(connection.server))  # type: ignore[arg-type]
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return connection

    def do(self, work: Callable[[], object]) -> asyncio.Task[object]:
        """Run a request of a peer or an admin as part of this process: it ends with it."""
        task = asyncio.ensure_future(work())  # type: ignore[arg-type]
        self._serving.add(task)  # type: ignore[arg-type]
        task.add_done_callback(self._serving.discard)  # type: ignore[arg-type]
        return task
