"""Where a controller's PostgreSQL database is, with what it takes to get in; never shown with its password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from klinket.domain.errors import InvalidInput

SCHEMES = ("postgresql://", "postgres://")
#: Seconds to connect to one address of the database's host.
CONNECT_SECONDS = 5
#: Seconds of silence until a peer is asked whether it is there, between questions, and how many go unanswered.
KEEPALIVE = (10, 5, 3)
_LOCAL = ("", "localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """Parameters of libpq; `str()` shows neither the password nor anything but user, host, port and name."""

    parameters: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, url: str, *, password: str | None = None) -> PostgresAddress:
        """Return the address of `postgresql://[USER@]HOST[:PORT]/NAME[?PARAMETER=VALUE]`; raises InvalidInput("database").

        `password` goes before one in the URL. What is missing is taken from PGPASSFILE and libpq's other settings.
        """
        if not url.startswith(SCHEMES):
            raise InvalidInput("database", "the database is given as postgresql://USER@HOST:PORT/NAME")
        try:
            from psycopg import ProgrammingError
            from psycopg.conninfo import conninfo_to_dict
        except ImportError:
            hint = "pip install 'klinket[controller,postgres]'"
            raise InvalidInput("database", "PostgreSQL needs a driver that is not installed", hint=hint) from None
        try:
            given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
        except ProgrammingError:
            # The driver's text quotes the URL, and the URL may hold a password.
            raise InvalidInput("database", "this is no URL that PostgreSQL understands") from None
        if not given.get("dbname"):
            raise InvalidInput("database", "the URL names no database", hint="postgresql://USER@HOST:PORT/NAME")
        if password is not None:
            given["password"] = password
        return cls({**_defaults(given), **given})

    @property
    def has_password(self) -> bool:
        """Return whether a password came with the address."""
        return bool(self.parameters.get("password"))

    def __str__(self) -> str:
        of = self.parameters
        user = f"{of['user']}@" if "user" in of else ""
        port = f":{of['port']}" if "port" in of else ""
        return f"postgresql://{user}{of.get('host', '')}{port}/{of['dbname']}"


def _defaults(given: Mapping[str, str]) -> dict[str, str]:
    idle, between, count = KEEPALIVE
    found = {
        "application_name": "klinket",
        "connect_timeout": str(CONNECT_SECONDS),
        "keepalives_idle": str(idle),
        "keepalives_interval": str(between),
        "keepalives_count": str(count),
        "tcp_user_timeout": str((idle + between * count) * 1000),
    }
    hosts = [host for name in ("host", "hostaddr") for host in given.get(name, "").split(",")]
    if not all(host in _LOCAL or host.startswith(("/", "@")) for host in hosts):
        # Whoever answers in the database's place would decide who may reach what.
        found["sslmode"] = "verify-full"
    return found
