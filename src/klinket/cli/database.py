"""The options that say where a controller's database is, for those that are not a file in --state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from klinket.domain.errors import InvalidInput

if TYPE_CHECKING:
    from klinket.controller.database import PostgresAddress

F = TypeVar("F", bound=Callable[..., Any])
#: Bytes of a password file.
MAX_PASSWORD_BYTES = 4_096


@dataclass(frozen=True)
class Given:
    """What was given: a URL (from the command line or the environment), and the file that holds the password."""

    url: str | None = field(repr=False)
    password_file: Path | None
    is_on_argv: bool

    def address(self) -> PostgresAddress | None:
        """Return the address of the database, or None for a file in --state; raises InvalidInput."""
        from klinket.controller.database import PostgresAddress

        if not self.url:
            if self.password_file is not None:
                raise InvalidInput("--database-password-file", "a password is given, but no --database")
            return None
        if self.is_on_argv and PostgresAddress.parse(self.url).has_password:
            hint = "set KLINKET_DATABASE, PGPASSFILE or --database-password-file instead"
            raise InvalidInput("--database", "a password on the command line is seen by everybody on this machine", hint=hint)
        return PostgresAddress.parse(self.url, password=self._password())

    def _password(self) -> str | None:
        if self.password_file is None:
            return None
        try:
            with self.password_file.open("rb") as file:
                content = file.read(MAX_PASSWORD_BYTES + 1)
            text = content.decode().removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput("--database-password-file", f"{self.password_file} cannot be read") from error
        if not text or len(content) > MAX_PASSWORD_BYTES or "\x00" in text:
            raise InvalidInput("--database-password-file", f"{self.password_file} holds no password")
        return text


def options(command: F) -> Callable[..., Any]:
    """Give a command the options; it gets them as `given`."""

    @click.option(
        "--database", envvar="KLINKET_DATABASE", metavar="URL", help="postgresql://USER@HOST/NAME; default: in --state."
    )
    @click.option("--database-password-file", type=click.Path(path_type=Path), help="File with the password for --database.")
    @wraps(command)
    def with_options(*args: Any, database: str | None, database_password_file: Path | None, **more: Any) -> Any:
        source = click.get_current_context().get_parameter_source("database")
        given = Given(database, database_password_file, source is ParameterSource.COMMANDLINE)
        return command(*args, given=given, **more)

    return with_options
