"""A controller put together: store, trust, dispatch, HTTP, and a relay beside it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from klinket.controller import audit_signing, sealing, trust, web
from klinket.controller.app import (
    api_tokens,
    console_sessions,
    defaults,
    flow_events,
    key_hygiene,
    live_flows,
    sessions,
    sign_in,
    sign_in_links,
    sinks,
)
from klinket.controller.app.ports import Transaction
from klinket.controller.app.store_errors import StoreUnavailable
from klinket.controller.authority import AuthorityPurpose
from klinket.controller.composition import compose
from klinket.controller.config import ControllerConfig
from klinket.controller.metrics import Metrics
from klinket.controller.peers import Peers
from klinket.controller.pruning import Pruning
from klinket.controller.relay_process import RelayProcess
from klinket.controller.sealing import MasterKey
from klinket.controller.sinks.delivery import Deliveries
from klinket.controller.store.engine import SqlStore, open_store
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.audit import SYSTEM
from klinket.net import clock, tls
from klinket.net.files import replace_private
from klinket.net.metrics_endpoint import served
from klinket.net.tasks import TaskSet
from klinket.wire import signing
from klinket.wire.cut_token import sign_cut

logger = logging.getLogger(__name__)

FIRST_TOKEN_NAME = "first start"  # noqa: S105 - a name
#: Seconds between rounds of housekeeping, and after which a session nobody attached is forgotten.
HOUSEKEEPING_SECONDS = 60.0
#: Seconds between looks for audit events to sign and flow events to forget.
EVENTS_SECONDS = 10.0
LOST_SESSION_MS = 24 * 3_600_000


async def run(
    config: ControllerConfig, announce: Callable[[str], None], stop: asyncio.Event, opened: Callable[[], None] = lambda: None
) -> None:
    """Serve until `stop` is set. `announce` prints what the first start has to say, once.

    `opened`: is called when the database is found to be this network's.
    """
    config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    master = sealing.load_or_make(config.master_key_file or config.state / "keys" / "master.key")
    store = open_store(config.database, clock.wall)
    try:
        await store.write(defaults.ensure)
        trusted = await trust.load_or_make(store, master, config.network, clock.wall, clock.entropy)
        opened()
        store.use_cut_signer(
            lambda cut: sign_cut(trusted.signers[KeyPurpose.CUT], cut, network=config.network), config.grant_seconds
        )
        await _serve(config, store, trusted, master, announce, stop)
    finally:
        store.close()


async def _serve(
    config: ControllerConfig,
    store: SqlStore,
    trusted: Trust,
    master: MasterKey,
    announce: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    context = _web_context(config, trusted)
    controller = compose(config, store, trusted, master, clock=clock.wall, entropy=clock.entropy)
    tasks = TaskSet("controller")
    try:
        await controller.dispatch.start()
        controller.peers.expected = await store.read(sessions.count_live)
        listener = web.bind(config.listen)  # before the token is shown: what cannot listen has said nothing yet
        await _say_hello(config, store, announce)
        watched = served(
            config.metrics, lambda: controller.metrics.exposition, controller.observed.ready, controller.observed.measured
        )
        async with watched, web.serving(controller.app, listener, context) as server:
            await store.write(lambda tx: sinks.ensure_local(tx, config.local_sinks))
            tasks.start(Deliveries(store, master.open, config.allowed_outbound).run(), "sinks")
            tasks.start(_housekeeping(store, controller.peers, controller.metrics), "housekeeping")
            tasks.start(controller.clock_watch.run(), "clock watch")
            exporting, steady = controller.exports, controller.clock_watch.steady_seconds
            pruning = Pruning(store, trusted, config.audit_days, lambda: exporting.is_running, steady)
            tasks.start(_keep_events(config, store, trusted, pruning), "events")
            if config.relay is not None and config.relay_listens_on is not None:
                beside = RelayProcess(config, config.relay, config.relay_listens_on, clock.entropy)
                await beside.prepare(store)
                tasks.start(beside.run(), "relay")
            stopped = tasks.start(stop.wait(), "stop")
            superseded = tasks.start(controller.dispatch.superseded(), "superseded")
            await asyncio.wait({stopped, server.running, superseded}, return_when=asyncio.FIRST_COMPLETED)
            if superseded.done():
                raise superseded.result()
            if not stop.is_set():
                # Without its web server a controller is none: whoever keeps it running should start it again.
                raise OSError(f"the web server on {config.listen} has ended") from _failure_of(server.running)
    finally:
        await tasks.aclose()
        await controller.dispatch.aclose()
        await controller.unproven_refusals.aclose()


def _failure_of(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _web_context(config: ControllerConfig, trusted: Trust) -> ssl.SSLContext:
    """Return the TLS settings: a given certificate, or one of the network's own web authority, made now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    # No resumption: clients make a full handshake each time, so a ticket would be made and sent for nothing; and nothing that was
    # proven once outlives its connection.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if config.certificate is not None and config.private_key is not None:
        context.load_cert_chain(config.certificate, config.private_key)
        return context
    authority = trusted.authorities[AuthorityPurpose.WEB]
    key = signing.generate_private_key()
    certificate = authority.certify_web(key.public_key(), [config.public_host], clock.wall())
    tls.load_identity(context, certificate, signing.private_key_to_pem(key))
    replace_private(config.authority_file, authority.certificate_pem.encode(), mode=0o644)  # it is public
    return context


async def _say_hello(config: ControllerConfig, store: SqlStore, announce: Callable[[str], None]) -> None:
    def first_token(tx: Transaction) -> str | None:
        if tx.api_tokens.newest(1):
            return None
        return api_tokens.create(tx, SYSTEM, name=FIRST_TOKEN_NAME, scopes=api_tokens.ALL_SCOPES, entropy=clock.entropy)[1]

    token = await store.write(first_token)
    link = await store.write(lambda tx: sign_in_links.first_admin(tx, SYSTEM, clock.entropy))
    logger.info("network %s is served at %s", config.network, config.public_url)
    if token is not None:
        authority = "" if config.certificate else f"\n  export KLINKET_CA={config.authority_file.absolute()}"
        announce(
            "This is the first start. The admin API token below is shown this once:\n\n"
            f"  export KLINKET_URL={config.public_url}\n  export KLINKET_API_TOKEN={token}{authority}\n\n"
            "Next: klinket admin network create NAME"
        )
    if link is not None:
        announce(
            "Make the console's first admin with this one-time link; it is shown this once and works for 24 hours:\n\n"
            f"  {sign_in_links.address_of(config.public_url, link)}\n"
        )


async def _housekeeping(store: SqlStore, peers: Peers, counted: Metrics) -> None:
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        attached = set(peers.clients)
        peers.expected = 0  # whoever was to come back has
        try:
            await store.write(lambda tx: sessions.end_lost(tx, tx.now_ms - LOST_SESSION_MS, attached))  # noqa: B023
            await store.write(live_flows.forget_unheard)
            await store.write(console_sessions.forget_old)
            await store.write(sign_in.forget)
            await store.write(key_hygiene.end_overlaps)
            await store.write(key_hygiene.warn_of_expiry)
            counted.set_expiring(await store.read(key_hygiene.expiring_counts))
        except StoreUnavailable as error:
            logger.warning("no housekeeping now: %s", error.message)
        except Exception:
            logger.exception("housekeeping failed; trying again in %.0f s", HOUSEKEEPING_SECONDS)


async def _keep_events(config: ControllerConfig, store: SqlStore, trusted: Trust, pruning: Pruning) -> None:
    while True:
        await asyncio.sleep(EVENTS_SECONDS)
        try:
            await audit_signing.sign_waiting(store, trusted)
            while await store.write(lambda tx: flow_events.forget(tx, days=config.flow_days, max_events=config.flow_events)):
                await asyncio.sleep(0)  # one step a transaction: others want to write as well
            await pruning.round()
        except StoreUnavailable as error:
            logger.warning("audit and flow events wait for the next round: %s", error.message)
        except Exception:
            logger.exception("audit and flow events wait for the next round")
