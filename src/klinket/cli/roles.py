"""What the commands of all roles share: logging to stderr, and running until SIGTERM or Ctrl-C."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from klinket.domain.errors import InvalidInput
from klinket.domain.printable import escaped

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from klinket.domain.explanation import Step
    from klinket.domain.flow import TransportProtocol
    from klinket.net.sockets import HostPort

#: Bytes at which a log file is rotated, and rotated ones that are kept.
MAX_LOG_BYTES = 10 * 1024 * 1024
LOGS_KEPT = 2
LEVELS = ("error", "warning", "info", "debug")
#: Seconds after its start when a part has made what it keeps as long as it lives.
SETTLED_SECONDS = 3.0
#: Of everything that uses a service key; tab completion lists files.
KEY_FILE_OPTION = click.option(
    "--key-file", type=click.Path(), metavar="FILE|-", help="The service key; default: the variable KLINKET_SERVICE_KEY."
)
#: Of what begins with a login that must not last for ever.
TIMEOUT_OPTION = click.option("--timeout", default=30.0, show_default=True, metavar="SECONDS", help="To be ready.")
#: Of parts that can be watched.
METRICS_OPTION = click.option(
    "--metrics", metavar="HOST:PORT", envvar="KLINKET_METRICS", help="Serve /metrics, /live and /ready there, by HTTP."
)
#: Of what prints facts, once it is done.
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for scripts.")
MAX_TIMEOUT_SECONDS = 86_400
#: Of what carries many flows, or pairs.
PROCESSES_OPTION = click.option(
    "--processes",
    type=click.IntRange(1, 64),
    envvar="KLINKET_PROCESSES",
    metavar="N",
    help="Processes that may move bytes, started with the work; 1: none beside this one. Default: the cores, at least 2.",
)


def check_timeout(seconds: float, option: str = "timeout", *, or_none: bool = False) -> None:
    """Raise InvalidInput unless the option's value is more than nothing (`or_none`: or nothing) and at most a day."""
    if not (0 < seconds <= MAX_TIMEOUT_SECONDS or (or_none and seconds == 0)):
        raise InvalidInput(option, f"--{option} is not between 0 and {MAX_TIMEOUT_SECONDS} seconds")


class OneLine(logging.Formatter):
    """Lines as they are, whatever others have put into them: nobody forges a second one, or moves the cursor of who reads it.

    A traceback goes on below its line, each line of it set in.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging calls it so
        """Return the line."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as above
        """Return a traceback."""
        return "\n".join(f"  {escaped(line)}" for line in super().formatException(ei).splitlines())


def set_up_logging(level: str, file: Path | None = None) -> None:
    """Log lines of this level and above to stderr, or to a file that is rotated, with time and logger."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        from logging.handlers import RotatingFileHandler

        handler = RotatingFileHandler(file, maxBytes=MAX_LOG_BYTES, backupCount=LOGS_KEPT)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for noisy in ("websockets", "asyncio", "alembic", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def show(text: str, document: Any, *, as_json: bool) -> None:
    """Print `text` for people, or `document` (JSON or a msgspec struct; fields in snake_case) for scripts."""
    if as_json:
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    click.echo(text)


def show_steps(steps: Iterable[Step]) -> None:
    """Print the steps of an explanation: what was found, the evidence below it, and what to do where one is not met."""
    for step in steps:
        click.echo(escaped(f"{'ok ' if step.ok else 'NO '} {step.name.value:<10} {step.text}"))
        for line in step.evidence:
            click.echo(escaped(f"{'':14} {line}"))
        if step.hint and not step.ok:
            click.echo(escaped(f"{'':14} -> {step.hint}"))


def protocol_of(*, udp: bool, icmp: bool) -> TransportProtocol:
    """Return what --udp and --icmp ask for; raises InvalidInput for both."""
    from klinket.domain.flow import TransportProtocol

    if udp and icmp:
        raise InvalidInput("icmp", "--udp and --icmp exclude each other")
    return TransportProtocol.ICMP if icmp else TransportProtocol.UDP if udp else TransportProtocol.TCP


def host_port(option: str, text: str) -> HostPort:
    """Return the address an option gives; raises InvalidInput naming the option."""
    from klinket.net.sockets import HostPort

    try:
        return HostPort.parse(text)
    except InvalidInput as error:
        raise InvalidInput(option, error.message, hint="write HOST:PORT, for example 127.0.0.1:8443 or [::1]:8443") from error


def metrics_address(text: str | None, port_variable: str | None = None) -> HostPort | None:
    """Return where metrics are served, or None; a variable that holds just a port means loopback. Raises InvalidInput."""
    import os

    if text:
        return host_port("--metrics", text)
    port = os.environ.get(port_variable, "").strip() if port_variable else ""
    return host_port(str(port_variable), f"127.0.0.1:{port}") if port else None


def run_until_stopped(main: Callable[[asyncio.Event], Awaitable[Any]]) -> Any:
    """Run `main(stop)` on a fast event loop; SIGTERM and SIGINT set `stop`, a second one ends at once."""

    import asyncio

    from klinket.net import collector

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
        loop.call_later(SETTLED_SECONDS, collector.settle)
        return await main(stop)

    return run_async(run())


def asked_to_reload() -> asyncio.Event:
    """Return an event that SIGHUP sets; to be called on the event loop."""
    import asyncio

    asked = asyncio.Event()
    if sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    return asked


def run_async(main: Any) -> Any:
    """Run a coroutine on uvloop where there is one."""
    if sys.platform == "win32":
        import asyncio

        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)


def end_at_ctrl_c() -> None:
    """End at once by the signal itself, until an event loop takes it: nothing is to be cleaned up before."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where whoever started this ignores it
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def forbid_core_dumps(*, later: bool = False) -> None:
    """Keep secrets out of core files, and other processes of the user out of this one's memory; raises OSError.

    `later`: the second by the caller, after it has made a child with a user namespace, which needs files of /proc.
    """
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and not later:
        from klinket.net.undumpable import be_undumpable

        # A handler that core_pattern pipes to gets its core whatever the limit is (core(5)).
        be_undumpable()
