"""The parts of a controller put together: what a request can reach, who is attached, what follows a commit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.applications import Starlette

from klinket.controller.api_access import ApiAccess, ApiRates
from klinket.controller.app.ports import Store
from klinket.controller.authority import AuthorityPurpose
from klinket.controller.channels import Channels
from klinket.controller.clock_watch import ClockWatch
from klinket.controller.config import ControllerConfig
from klinket.controller.console.gate import Gate
from klinket.controller.console.live import LiveTopics
from klinket.controller.console.page import Console
from klinket.controller.console.routes import console_routes
from klinket.controller.console.sign_in.routes import sign_in_routes
from klinket.controller.console.static import StaticFiles
from klinket.controller.console.templates import Templates
from klinket.controller.dispatch import Dispatch
from klinket.controller.enrolment import Enrolments
from klinket.controller.exports import Exports
from klinket.controller.graphql.context import ApiServices, KeyFileFacts
from klinket.controller.graphql.execute import API_PREPARES, API_READS, GraphQLApi
from klinket.controller.graphql.extension.load import load_extension
from klinket.controller.graphql.http import graphql_routes
from klinket.controller.graphql.lane import Lane
from klinket.controller.graphql.schema import load_schema
from klinket.controller.head_guard import HeadGuard
from klinket.controller.http import Endpoints, no_such_method, no_such_path
from klinket.controller.key_revocation import KeyRevocations
from klinket.controller.login import Logins
from klinket.controller.metrics import Metrics
from klinket.controller.observed import Observed
from klinket.controller.peers import Peers
from klinket.controller.punching import Punching
from klinket.controller.relay_channels import RelayChannels
from klinket.controller.relay_process import NAME as OWN_RELAY
from klinket.controller.sealing import MasterKey
from klinket.controller.trust import Trust
from klinket.controller.unproven_refusals import UnprovenRefusals
from klinket.wire.key_file import LOGIN_PATH
from klinket.wire.paths import EXTENSION_PATH, GRAPHQL_PATH, LOGOUT_PATH, REVOKE_PATH


@dataclass(frozen=True)
class Controller:
    """Start `dispatch` on the event loop that serves `app`."""

    app: Starlette
    peers: Peers
    dispatch: Dispatch
    metrics: Metrics
    observed: Observed
    exports: Exports
    clock_watch: ClockWatch
    unproven_refusals: UnprovenRefusals


def compose(
    config: ControllerConfig,
    store: Store,
    trusted: Trust,
    master: MasterKey,
    *,
    clock: Callable[[], float],
    entropy: Callable[[int], bytes],
) -> Controller:
    """Return a controller over an open store. `clock`: seconds since the epoch."""
    peers = Peers()
    guard = HeadGuard(trusted)
    dispatch = Dispatch(store, trusted, peers, clock, config.grant_seconds, config.account_defaults)
    authority = trusted.authorities[AuthorityPurpose.WEB].certificate_pem if config.certificate is None else None
    services = ApiServices(
        facts=KeyFileFacts(config.host_and_port, authority),
        entropy=entropy,
        seal=master.seal,
        attached_sessions=lambda: frozenset(peers.clients),
        attached_connectors=peers.online,
        attached_relays=lambda: frozenset(peers.relays),
        own_relays=frozenset() if config.relay is None else frozenset({OWN_RELAY}),
        listening_connectors=peers.direct,
        account_defaults=config.account_defaults,
        audit_days=config.audit_days,
    )

    access = ApiAccess(store, ApiRates(config.api_reads_per_minute, config.api_writes_per_minute))
    metrics = Metrics(peers)
    observed = Observed(store, metrics)
    punching = Punching(config.hole_punching, time.monotonic, entropy, lambda outcome: metrics.punches.labels(outcome).inc())
    origin = config.public_url.rstrip("/")

    def alarm(attempt: str) -> None:
        metrics.canary_alarms.labels(attempt).inc()

    unproven_refusals = UnprovenRefusals(store)
    relay_channels = RelayChannels(store, trusted, peers, clock)
    endpoints = Endpoints(
        store,
        trusted,
        Logins(
            store,
            trusted,
            origin + LOGIN_PATH,
            origin + LOGOUT_PATH,
            clock,
            entropy,
            peers.seated,
            alarm,
            peers.logged_in,
            services.refused_logins,
            unproven_refusals,
        ),
        Enrolments(store, trusted, clock),
        Channels(store, trusted, peers, dispatch, guard, punching, clock, entropy, metrics.throttled.labels("flows").inc),
        relay_channels,
        punching,
        KeyRevocations(store, origin + REVOKE_PATH, clock, alarm),
        metrics,
        observed,
        access.reader,
    )

    async def tell_the_time() -> None:
        relay_channels.tell_all()
        # Connectors first: they believe the grants that clients get by the time that they know.
        for connector in [one for one in peers.connectors.values() if one.sent is not None]:
            await dispatch.configure_connector(connector)
        for client in peers.clients.values():
            client.sent = None
        dispatch.peers_changed()

    static = StaticFiles()
    live = LiveTopics(store, peers)
    exports = Exports(store, trusted)
    console = Console(config, store, trusted, peers, services, Templates(static, config.network), live, exports, clock)
    gate = Gate(console)
    reads, prepares = Lane(API_READS), Lane(API_PREPARES)
    app = Starlette(
        routes=[
            *graphql_routes(GRAPHQL_PATH, GraphQLApi(store, load_schema(), services, reads, prepares), access),
            *graphql_routes(EXTENSION_PATH, GraphQLApi(store, load_extension(), services, reads, prepares), access),
            *console_routes(gate, static, sign_in_routes(console, gate, master)),
            *endpoints.routes(),
            *exports.routes(access.reader),
        ],
        exception_handlers={404: no_such_path, 405: no_such_method},
    )
    app.router.redirect_slashes = False  # the address of a redirect would come from the request
    clock_watch = ClockWatch(clock, time.monotonic, tell_the_time)
    return Controller(app, peers, dispatch, metrics, observed, exports, clock_watch, unproven_refusals)
