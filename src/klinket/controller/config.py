"""The controller's settings."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from klinket.controller.database import PostgresAddress
from klinket.domain.errors import InvalidInput
from klinket.net.sockets import HostPort
from klinket.wire.grant_token import DEFAULT_LIFETIME_SECONDS, MAX_LIFETIME_SECONDS
from klinket.wire.identity import parse_network_name

MIN_GRANT_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class ControllerConfig:
    """`public_url`: what parts dial and what login assertions are made for; never taken from a request.

    `postgres`: where the database is, if it is not the file in the state folder.
    """

    network: str
    state: Path
    listen: HostPort
    public_url: str
    certificate: Path | None = None
    private_key: Path | None = None
    master_key_file: Path | None = None
    relay: HostPort | None = None
    relay_listen: HostPort | None = None
    grant_seconds: int = DEFAULT_LIFETIME_SECONDS
    postgres: PostgresAddress | None = None

    def __post_init__(self) -> None:
        parse_network_name(self.network)
        url = urlsplit(self.public_url)
        if url.scheme != "https" or not url.hostname or url.path not in ("", "/") or url.query or url.username:
            raise InvalidInput("public-url", f"not an https URL without a path: {self.public_url}")
        if (self.certificate is None) != (self.private_key is None):
            raise InvalidInput("certificate", "--certificate and --key go together")
        if not MIN_GRANT_SECONDS <= self.grant_seconds <= MAX_LIFETIME_SECONDS:
            raise InvalidInput("grant-seconds", f"grants live {MIN_GRANT_SECONDS} to {MAX_LIFETIME_SECONDS} s")

    @property
    def relay_listens_on(self) -> HostPort | None:
        """Return where the relay beside the controller listens: a name others dial need not be this machine's."""
        if self.relay is None or self.relay_listen is not None:
            return self.relay_listen
        try:
            ipaddress.ip_address(self.relay.host)
        except ValueError:
            return HostPort("0.0.0.0", self.relay.port)  # noqa: S104 - it is made to be reached
        return self.relay

    @property
    def host_and_port(self) -> str:
        """Return host, or host:port, as key files name the controller."""
        return urlsplit(self.public_url).netloc.lower()

    @property
    def public_host(self) -> str:
        """Return the host alone."""
        return urlsplit(self.public_url).hostname or ""

    @property
    def database(self) -> Path | PostgresAddress:
        """Return where the database is: PostgreSQL's address, or the path of the SQLite file."""
        return self.postgres or self.state / "klinket.db"

    @property
    def authority_file(self) -> Path:
        """Return where the web authority's certificate is written for people and scripts."""
        return self.state / "controller-ca.pem"
