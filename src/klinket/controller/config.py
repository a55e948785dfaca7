"""The controller's settings."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from klinket.controller.app.flow_events import DEFAULT_DAYS, DEFAULT_MAX_EVENTS
from klinket.controller.app.retention import DEFAULT_DAYS as DEFAULT_AUDIT_DAYS
from klinket.controller.app.retention import MAX_DAYS as MAX_AUDIT_DAYS
from klinket.controller.app.retention import MIN_DAYS as MIN_AUDIT_DAYS
from klinket.controller.database import PostgresAddress
from klinket.controller.oidc_settings import OidcSettings
from klinket.controller.sinks.files import DEFAULT_FILE_BYTES, DEFAULT_KEPT_FILES
from klinket.domain.account_limits import AccountLimits, defaults_with
from klinket.domain.errors import InvalidInput
from klinket.domain.sink import SinkKind
from klinket.net.sockets import HostPort
from klinket.wire.grant_token import DEFAULT_LIFETIME_SECONDS, MAX_LIFETIME_SECONDS
from klinket.wire.identity import parse_network_name

MIN_GRANT_SECONDS = 30
MIN_EVENT_FILE_BYTES = 65_536
MAX_EVENT_FILES = 1_000
#: Requests and mutations of one API token in a minute; 0: no limit (docs/decisions/0009-limits-of-api-tokens.md).
API_READS_PER_MINUTE = 600
API_WRITES_PER_MINUTE = 200
#: Days, and number, of flow events that can be kept.
MAX_FLOW_DAYS = 3_650
MAX_FLOW_EVENTS = 100_000_000
#: New flows of a service account a second at each connector, and the most that can be set.
NEW_FLOWS_PER_SECOND = 500
MAX_NEW_FLOWS_PER_SECOND = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ControllerConfig:
    """`public_url`: what parts dial and what login assertions are made for; never taken from a request.

    `api_reads_per_minute`, `api_writes_per_minute`: of each API token; 0: no limit.
    `metrics`: where it can be watched over plain HTTP, beside `GET /metrics` for this machine.
    `audit_days`: for which audit events, cuts and receipts are kept; no API token can change it.
    `new_flows_per_second`: of a service account, at each connector.
    `hole_punching`: let clients and connectors behind NATs meet.
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
    event_file: Path | None = None
    event_file_bytes: int = DEFAULT_FILE_BYTES
    event_files_kept: int = DEFAULT_KEPT_FILES
    events_to_stdout: bool = False
    allowed_outbound: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    api_reads_per_minute: int = API_READS_PER_MINUTE
    api_writes_per_minute: int = API_WRITES_PER_MINUTE
    flow_days: int = DEFAULT_DAYS
    flow_events: int = DEFAULT_MAX_EVENTS
    audit_days: int = DEFAULT_AUDIT_DAYS
    new_flows_per_second: int = NEW_FLOWS_PER_SECOND
    postgres: PostgresAddress | None = None
    oidc: OidcSettings | None = None
    hole_punching: bool = True
    metrics: HostPort | None = None

    def __post_init__(self) -> None:
        parse_network_name(self.network)
        url = urlsplit(self.public_url)
        if url.scheme != "https" or not url.hostname or url.path not in ("", "/") or url.query or url.username:
            told = f"not an https URL without a path: {self.public_url}"
            raise InvalidInput("public-url", told, hint="https://HOST or https://HOST:PORT")
        if (self.certificate is None) != (self.private_key is None):
            raise InvalidInput("certificate", "--certificate and --key go together")
        if self.event_file_bytes < MIN_EVENT_FILE_BYTES or not 1 <= self.event_files_kept <= MAX_EVENT_FILES:
            told = f"event files have {MIN_EVENT_FILE_BYTES} bytes or more, and 1 to {MAX_EVENT_FILES} are kept"
            raise InvalidInput("event-file", told)
        if not MIN_GRANT_SECONDS <= self.grant_seconds <= MAX_LIFETIME_SECONDS:
            raise InvalidInput("grant-seconds", f"grants live {MIN_GRANT_SECONDS} to {MAX_LIFETIME_SECONDS} s")
        for name in ("api_reads_per_minute", "api_writes_per_minute"):
            if getattr(self, name) < 0:
                raise InvalidInput(name.replace("_", "-"), "a limit is 0 (none) or more a minute")
        if not 1 <= self.flow_days <= MAX_FLOW_DAYS:
            raise InvalidInput("flow-days", f"flow events are kept for 1 to {MAX_FLOW_DAYS} days")
        if not 1 <= self.flow_events <= MAX_FLOW_EVENTS:
            raise InvalidInput("flow-events", f"1 to {MAX_FLOW_EVENTS} flow events can be kept")
        if not MIN_AUDIT_DAYS <= self.audit_days <= MAX_AUDIT_DAYS:
            raise InvalidInput("audit-days", f"the audit is kept for {MIN_AUDIT_DAYS} to {MAX_AUDIT_DAYS} days")
        if not 1 <= self.new_flows_per_second <= MAX_NEW_FLOWS_PER_SECOND:
            raise InvalidInput("new-flows-per-second", f"1 to {MAX_NEW_FLOWS_PER_SECOND} new flows a second can be allowed")

    @property
    def local_sinks(self) -> dict[SinkKind, dict[str, Any]]:
        """Return the settings of the sinks on this machine."""
        wanted: dict[SinkKind, dict[str, Any]] = {}
        if self.event_file is not None:
            path = str(self.event_file.absolute())
            wanted[SinkKind.FILE] = {"path": path, "max_bytes": self.event_file_bytes, "kept_files": self.event_files_kept}
        if self.events_to_stdout:
            wanted[SinkKind.STDOUT] = {}
        return wanted

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
    def account_defaults(self) -> AccountLimits:
        """Return the limits of service accounts for which nothing else is set."""
        return defaults_with(self.new_flows_per_second)

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
