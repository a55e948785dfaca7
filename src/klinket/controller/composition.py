"""The parts of a controller put together: what a request can reach, who is attached, what follows a commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.applications import Starlette

from klinket.controller.app import api_tokens
from klinket.controller.app.ports import Actor, Store
from klinket.controller.authority import AuthorityPurpose
from klinket.controller.channels import Channels
from klinket.controller.config import ControllerConfig
from klinket.controller.dispatch import Dispatch
from klinket.controller.enrolment import Enrolments
from klinket.controller.exports import Exports
from klinket.controller.graphql.context import ApiCaller, ApiServices, KeyFileFacts
from klinket.controller.graphql.execute import GraphQLApi
from klinket.controller.graphql.extension.load import load_extension
from klinket.controller.graphql.http import EXTENSION_PATH, GRAPHQL_PATH, graphql_routes
from klinket.controller.graphql.schema import load_schema
from klinket.controller.http import Endpoints
from klinket.controller.login import Logins
from klinket.controller.metrics import Metrics
from klinket.controller.peers import Peers
from klinket.controller.relay_channels import RelayChannels
from klinket.controller.sealing import MasterKey
from klinket.controller.trust import Trust
from klinket.domain.audit import ActorType
from klinket.wire.key_file import LOGIN_PATH


@dataclass(frozen=True)
class Controller:
    """Start `dispatch` on the event loop that serves `app`."""

    app: Starlette
    peers: Peers
    dispatch: Dispatch


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
    dispatch = Dispatch(store, trusted, peers, clock, config.grant_seconds)
    authority = trusted.authorities[AuthorityPurpose.WEB].certificate_pem if config.certificate is None else None
    services = ApiServices(
        facts=KeyFileFacts(config.host_and_port, authority),
        entropy=entropy,
        seal=master.seal,
        attached_sessions=lambda: frozenset(peers.clients),
        attached_connectors=peers.online,
    )

    async def authenticate(token: str, address: str) -> ApiCaller:
        row = await store.read(lambda tx: api_tokens.by_text(tx, token))
        actor = Actor(ActorType.API, id=str(row.id), name=row.name, source=address)
        return ApiCaller(actor, frozenset(row.scopes))

    endpoints = Endpoints(
        store,
        trusted,
        Logins(store, trusted, config.public_url.rstrip("/") + LOGIN_PATH, clock, entropy, lambda: peers.clients),
        Enrolments(store, trusted, clock),
        Channels(store, trusted, peers, dispatch, clock, entropy),
        RelayChannels(store, trusted, peers, clock),
        Metrics(peers),
        authenticate,
    )
    app = Starlette(
        routes=[
            *graphql_routes(GRAPHQL_PATH, GraphQLApi(store, load_schema(), services), authenticate),
            *graphql_routes(EXTENSION_PATH, GraphQLApi(store, load_extension(), services), authenticate),
            *endpoints.routes(),
            *Exports(store, trusted, authenticate).routes(),
        ]
    )
    return Controller(app, peers, dispatch)
