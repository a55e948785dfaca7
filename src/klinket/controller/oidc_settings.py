"""Which identity provider is believed, and what its accounts may be here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from klinket.controller.app.oidc_identities import ROLES, IdentityRules
from klinket.domain.errors import InvalidInput

MAX_SECRET_CHARS = 4_096
MAX_DOMAINS = 100
MAX_ROLES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class OidcSettings:
    """`issuer`: as the provider writes it in its tokens. `authority`: PEM of its certificate's, None: the system's."""

    issuer: str
    client_id: str
    rules: IdentityRules
    client_secret: str | None = field(default=None, repr=False)
    authority: str | None = None
    role_claim: str = "groups"
    label: str = "single sign-on"

    def __post_init__(self) -> None:
        url = urlsplit(self.issuer)
        if url.scheme != "https" or not url.hostname or url.query or url.fragment or url.username:
            raise InvalidInput("oidc-issuer", f"not an https URL: {self.issuer}", hint="as the provider calls itself in `iss`")
        if not self.client_id:
            raise InvalidInput("oidc-client-id", "--oidc-client-id is missing", hint="the provider gives it to this controller")


def parse_rules(domains: Iterable[str], roles: Iterable[str], new_role: str | None) -> IdentityRules:
    """Return the rules of `--oidc-domain`, `--oidc-role VALUE=ROLE` and `--oidc-create-users`; raises InvalidInput."""
    listed = frozenset(domain.strip().lower().removeprefix("@") for domain in domains)
    if not listed or "" in listed or len(listed) > MAX_DOMAINS:
        raise InvalidInput(
            "oidc-domain", f"1 to {MAX_DOMAINS} domains of e-mail addresses are needed", hint="--oidc-domain example.com"
        )
    given: dict[str, str] = {}
    for text in roles:
        value, _, role = text.rpartition("=")
        if not value or role not in ROLES:
            raise InvalidInput("oidc-role", f"not VALUE=ROLE: {text}", hint=f"roles are {', '.join(ROLES)}")
        given[value] = role
    if len(given) > MAX_ROLES:
        raise InvalidInput("oidc-role", f"at most {MAX_ROLES} values can be mapped")
    if new_role is not None and new_role not in ROLES:
        raise InvalidInput("oidc-create-users", f"there is no role {new_role}", hint=f"roles are {', '.join(ROLES)}")
    return IdentityRules(listed, given, new_role)


def read_secret(path: Path) -> str:
    """Return the client's secret of a file; raises InvalidInput, which never holds it."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("oidc-client-secret-file", f"cannot read {path}") from error
    if not 1 <= len(text) <= MAX_SECRET_CHARS or not text.isprintable():
        raise InvalidInput("oidc-client-secret-file", f"{path} holds no secret of 1 to {MAX_SECRET_CHARS} characters")
    return text
