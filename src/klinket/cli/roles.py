"""What the commands of all roles share: logging to stderr, and running until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from klinket.domain.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

    from klinket.net.sockets import HostPort

#: Bytes at which a log file is rotated, and rotated ones that are kept.
MAX_LOG_BYTES = 10 * 1024 * 1024
LOGS_KEPT = 2
LEVELS = ("error", "warning", "info", "debug")
#: Of `run`, `client` and `revoke`; tab completion lists files.
KEY_FILE_OPTION = click.option(
    "--key-file", type=click.Path(), metavar="FILE|-", help="The service key; default: the variable KLINKET_SERVICE_KEY."
)


def set_up_logging(level: str, file: Path | None = None) -> None:
    """Log lines of this level and above to stderr, or to a file that is rotated, with time and logger."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        from logging.handlers import RotatingFileHandler

        handler = RotatingFileHandler(file, maxBytes=MAX_LOG_BYTES, backupCount=LOGS_KEPT)
    logging.basicConfig(
        handlers=[handler], level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for noisy in ("websockets", "asyncio", "alembic", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def host_port(option: str, text: str) -> HostPort:
    """Return the address an option gives; raises InvalidInput naming the option."""
    from klinket.net.sockets import HostPort

    try:
        return HostPort.parse(text)
    except InvalidInput as error:
        raise InvalidInput(option, error.message, hint="write HOST:PORT, for example 127.0.0.1:8443 or [::1]:8443") from error


def run_until_stopped(main: Callable[[asyncio.Event], Awaitable[Any]]) -> Any:
    """Run `main(stop)` on a fast event loop; SIGTERM and SIGINT set `stop`, a second one ends at once."""

    async def run() -> Any:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ask() -> None:
            if stop.is_set():
                raise SystemExit(130)
            stop.set()

        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, ask)
        return await main(stop)

    return run_async(run())


def run_async(main: Any) -> Any:
    """Run a coroutine on uvloop where there is one."""
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)


def forbid_core_dumps() -> None:
    """Keep secrets out of core files, and other processes of the user out of this one's memory."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
