"""All routes of signing in, and of the own account."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.routing import BaseRoute

from klinket.controller.config import ControllerConfig
from klinket.controller.console.account import AccountPages
from klinket.controller.console.console_access import ConsoleAccessPages
from klinket.controller.console.gate import Gate
from klinket.controller.console.page import Console
from klinket.controller.console.route import ROOT, ConsoleRoute
from klinket.controller.console.sign_in import factor_page, link_page, password_page, prove_page, set_up_page
from klinket.controller.console.sign_in.passkey_ceremony import Passkeys
from klinket.controller.console.sign_in.password_hash import PasswordHasher
from klinket.controller.console.sign_in.visit import SignIn
from klinket.controller.sealing import MasterKey


@dataclass(frozen=True)
class SignInRoutes:
    """`open`: to people who are not signed in, or not yet; `whole`: to those who are."""

    open: tuple[BaseRoute, ...]
    whole: tuple[ConsoleRoute, ...]


def sign_in_routes(console: Console, gate: Gate, master: MasterKey) -> SignInRoutes:
    """Return the routes of signing in."""
    config, entropy = console.config, console.services.entropy
    origin = _origin(config)
    service = SignIn(
        console,
        gate,
        master,
        PasswordHasher(entropy),
        Passkeys(master, config.network, config.public_host, origin, entropy),
    )
    open_ = [
        *password_page.routes(service),
        *factor_page.routes(service),
        *set_up_page.routes(service),
        *link_page.routes(service),
        *prove_page.routes(service),
        *_identity_provider(service, origin),
    ]
    return SignInRoutes(tuple(open_), (*AccountPages(service).routes(), *ConsoleAccessPages(service).routes()))


def _identity_provider(service: SignIn, origin: str) -> list[BaseRoute]:
    config = service.console.config
    if config.oidc is None:
        return []
    # Imported here: only who has an identity provider needs the extra `oidc`.
    from klinket.controller.console.sign_in.oidc.page import CALLBACK_PATH, OidcPages
    from klinket.controller.console.sign_in.oidc.provider import Provider

    provider = Provider(config.oidc, origin + ROOT + CALLBACK_PATH, config.allowed_outbound, service.console.clock)
    service.provider, service.label = provider, config.oidc.label
    return OidcPages(service, provider, config.oidc.rules, config.oidc.issuer).routes()


def _origin(config: ControllerConfig) -> str:
    url = urlsplit(config.public_url)
    return f"{url.scheme}://{url.netloc}".lower()
