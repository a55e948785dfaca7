"""A controller put together: store, trust, dispatch, HTTP, and a relay beside it."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette

from klinket.controller import sealing, trust
from klinket.controller.app import api_tokens, defaults, sessions
from klinket.controller.app.ports import Transaction
from klinket.controller.authority import AuthorityPurpose
from klinket.controller.composition import compose
from klinket.controller.config import ControllerConfig
from klinket.controller.peers import Peers
from klinket.controller.relay_process import RelayProcess
from klinket.controller.sealing import MasterKey
from klinket.controller.store.engine import SqlStore, open_store
from klinket.controller.store.errors import StoreUnavailable
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.audit import SYSTEM
from klinket.net import clock, tls
from klinket.net.tasks import TaskSet
from klinket.wire import signing
from klinket.wire.control import MAX_CONTROL_BYTES
from klinket.wire.cut_token import sign_cut

logger = logging.getLogger(__name__)

FIRST_TOKEN_NAME = "first start"  # noqa: S105 - a name
#: Seconds between rounds of housekeeping, and after which a session nobody attached is forgotten.
HOUSEKEEPING_SECONDS = 60.0
LOST_SESSION_MS = 24 * 3_600_000


async def run(config: ControllerConfig, announce: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve until `stop` is set. `announce` prints what the first start has to say, once."""
    config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    master = sealing.load_or_make(config.master_key_file or config.state / "keys" / "master.key")
    store = open_store(config.database, clock.wall)
    try:
        await store.write(defaults.ensure)
        trusted = await trust.load_or_make(store, master, config.network, clock.entropy)
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
    await controller.dispatch.start()
    tasks = TaskSet("controller")
    await _say_hello(config, store, announce)
    async with _web_server(controller.app, config, context):
        tasks.start(_housekeeping(store, controller.peers), "housekeeping")
        if config.relay is not None and config.relay_listens_on is not None:
            beside = RelayProcess(config, config.relay, config.relay_listens_on, clock.entropy)
            await beside.prepare(store)
            tasks.start(beside.run(), "relay")
        await stop.wait()
        await tasks.aclose()
        await controller.dispatch.aclose()


@asynccontextmanager
async def _web_server(app: Starlette, config: ControllerConfig, context: ssl.SSLContext) -> AsyncIterator[None]:
    """Run uvicorn, already listening when the body begins (dependencies.md 2.2 for the settings)."""
    settings = uvicorn.Config(
        app,
        host=config.listen.host,
        port=config.listen.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_max_size=MAX_CONTROL_BYTES,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        backlog=4096,
        timeout_graceful_shutdown=5,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        lifespan="off",
    )
    settings.load()
    settings.ssl = context
    server = uvicorn.Server(settings)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server._serve())
    try:
        while not server.started:
            if serving.done():
                serving.result()
                raise OSError(f"cannot listen on {config.listen}")
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)


def _web_context(config: ControllerConfig, trusted: Trust) -> ssl.SSLContext:
    """Return the TLS settings: a given certificate, or one of the network's own web authority, made now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    if config.certificate is not None and config.private_key is not None:
        context.load_cert_chain(config.certificate, config.private_key)
        return context
    authority = trusted.authorities[AuthorityPurpose.WEB]
    key = signing.generate_private_key()
    certificate = authority.certify_web(key.public_key(), [config.public_host], clock.wall())
    tls.load_identity(context, certificate, signing.private_key_to_pem(key))
    temporary = config.authority_file.with_suffix(".new")
    temporary.write_text(authority.certificate_pem)
    os.chmod(temporary, 0o644)  # noqa: PTH101 - it is public
    temporary.rename(config.authority_file)
    return context


async def _say_hello(config: ControllerConfig, store: SqlStore, announce: Callable[[str], None]) -> None:
    def first_token(tx: Transaction) -> str | None:
        if tx.api_tokens.newest(1):
            return None
        return api_tokens.create(tx, SYSTEM, name=FIRST_TOKEN_NAME, scopes=api_tokens.ALL_SCOPES, entropy=clock.entropy)[1]

    token = await store.write(first_token)
    logger.info("network %s is served at %s", config.network, config.public_url)
    if token is not None:
        authority = "" if config.certificate else f"\n  export KLINKET_CA={config.authority_file.absolute()}"
        announce(
            "This is the first start. The admin API token below is shown this once:\n\n"
            f"  export KLINKET_URL={config.public_url}\n  export KLINKET_API_TOKEN={token}{authority}\n\n"
            "Next: klinket admin network create NAME"
        )


async def _housekeeping(store: SqlStore, peers: Peers) -> None:
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        attached = set(peers.clients)
        try:
            await store.write(lambda tx: sessions.end_lost(tx, tx.now_ms - LOST_SESSION_MS, attached))  # noqa: B023
        except StoreUnavailable as error:
            logger.warning("no housekeeping now: %s", error.message)
