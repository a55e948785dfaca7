"""The options that say which identity provider people may sign in to the console with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from klinket.domain.errors import InvalidInput

if TYPE_CHECKING:
    from klinket.controller.oidc_settings import OidcSettings

F = TypeVar("F", bound=Callable[..., Any])
MAX_PEM_BYTES = 262_144


@dataclass(frozen=True)
class Given:
    """What was given on the command line."""

    issuer: str | None
    client_id: str
    client_secret_file: Path | None
    ca: Path | None
    domains: tuple[str, ...]
    role_claim: str
    roles: tuple[str, ...]
    create_users: str | None
    label: str

    def settings(self) -> OidcSettings | None:
        """Return the settings, or None without --oidc-issuer; raises InvalidInput."""
        from klinket.controller.oidc_settings import OidcSettings, parse_rules, read_secret

        if self.issuer is None:
            if self.client_id or self.client_secret_file or self.domains or self.roles or self.create_users:
                raise InvalidInput("--oidc-issuer", "options of an identity provider are given, but no --oidc-issuer")
            return None
        _check_installed()
        return OidcSettings(
            issuer=self.issuer,
            client_id=self.client_id,
            client_secret=None if self.client_secret_file is None else read_secret(self.client_secret_file),
            authority=None if self.ca is None else _authority(self.ca),
            rules=parse_rules(self.domains, self.roles, self.create_users),
            role_claim=self.role_claim,
            label=self.label,
        )


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("authlib") is None or find_spec("httpx2") is None:
        raise InvalidInput("--oidc-issuer", "the extra `oidc` is not installed", hint='pip install "klinket[controller,oidc]"')


def _authority(path: Path) -> str:
    import ssl

    try:
        text = path.read_bytes()[: MAX_PEM_BYTES + 1].decode("ascii")
        ssl.create_default_context(cadata=text)
    except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
        raise InvalidInput("--oidc-ca", f"{path} holds no certificates in PEM") from error
    return text


def options(command: F) -> Callable[..., Any]:
    """Give a command the options; it gets them as `identity_provider`."""

    @click.option("--oidc-issuer", metavar="URL", help="Let people sign in to the console with this identity provider.")
    @click.option("--oidc-client-id", default="", metavar="ID", help="What the identity provider calls this controller.")
    @click.option("--oidc-client-secret-file", type=click.Path(path_type=Path), help="File with the secret that goes with it.")
    @click.option("--oidc-ca", type=click.Path(path_type=Path), help="The provider's authority (PEM), where it is its own.")
    @click.option("--oidc-domain", multiple=True, metavar="DOMAIN", help="A domain whose verified e-mail addresses count.")
    @click.option("--oidc-role-claim", default="groups", show_default=True, metavar="NAME", help="The claim that gives roles.")
    @click.option("--oidc-role", multiple=True, metavar="VALUE=ROLE", help="The role of who has VALUE in that claim.")
    @click.option("--oidc-create-users", metavar="ROLE", help="Make users when they first come, with this role.")
    @click.option("--oidc-label", default="single sign-on", show_default=True, metavar="TEXT", help="What the button says.")
    @wraps(command)
    def with_options(
        *args: Any,
        oidc_issuer: str | None,
        oidc_client_id: str,
        oidc_client_secret_file: Path | None,
        oidc_ca: Path | None,
        oidc_domain: tuple[str, ...],
        oidc_role_claim: str,
        oidc_role: tuple[str, ...],
        oidc_create_users: str | None,
        oidc_label: str,
        **more: Any,
    ) -> Any:
        given = Given(
            issuer=oidc_issuer,
            client_id=oidc_client_id,
            client_secret_file=oidc_client_secret_file,
            ca=oidc_ca,
            domains=oidc_domain,
            role_claim=oidc_role_claim,
            roles=oidc_role,
            create_users=oidc_create_users,
            label=oidc_label,
        )
        return command(*args, identity_provider=given, **more)

    return with_options
