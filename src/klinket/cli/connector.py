"""`klinket connector`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from klinket.cli import roles
from klinket.domain.errors import InvalidInput

_TWINGATE_LEVELS = {"3": "error", "4": "warning", "5": "info", "7": "debug"}


@click.group(invoke_without_command=True)
@click.option("--tokens-file", type=click.Path(path_type=Path), help="As written by `klinket admin connector tokens --out`.")
@click.option("--url", metavar="URL", help="The controller; default: the tokens file, KLINKET_URL or TWINGATE_NETWORK.")
@click.option("--ca", envvar="KLINKET_CA", type=click.Path(path_type=Path, exists=True), help="The controller's authority.")
@click.option("--state", type=click.Path(path_type=Path), help="Folder of its key, cuts and flow events; needed.")
@click.option("--listen", metavar="HOST:PORT", envvar="KLINKET_LISTEN", help="Let clients that can reach it connect directly.")
@click.option(
    "--advertise",
    metavar="HOST:PORT",
    multiple=True,
    envvar="KLINKET_ADVERTISE",
    help="Where clients find that; default: this machine's own addresses. Repeatable.",
)
@click.option("--drain-seconds", default=30.0, show_default=True, metavar="SECONDS", help="For live flows when it is stopped.")
@roles.PROCESSES_OPTION
@click.option("--no-hole-punching", is_flag=True, envvar="KLINKET_NO_HOLE_PUNCHING", help="Meet no clients through NATs.")
@roles.METRICS_OPTION
@click.option("--log-level", type=click.Choice(roles.LEVELS), help="Default: info, or TWINGATE_LOG_LEVEL.")
@click.pass_context
def connector(
    context: click.Context,
    tokens_file: Path | None,
    url: str | None,
    ca: Path | None,
    state: Path | None,
    listen: str | None,
    advertise: tuple[str, ...],
    drain_seconds: float,
    processes: int | None,
    no_hole_punching: bool,
    metrics: str | None,
    log_level: str | None,
) -> None:
    """Run a connector in a private network. It only dials out, unless it is told to listen.

    Tokens: --tokens-file, or KLINKET_ACCESS_TOKEN and KLINKET_REFRESH_TOKEN (TWINGATE_... works as well).

    \b
    example: klinket connector --tokens-file office-1.json --state /var/lib/klinket-connector
    """
    if context.invoked_subcommand is not None:
        return
    if state is None:
        raise InvalidInput("state", "no state folder", hint="give --state DIR: one folder for each connector")

    from klinket.connector import config, limits
    from klinket.connector.observed import run
    from klinket.connector.serve import Connector
    from klinket.net.carrying import with_workers

    roles.set_up_logging(log_level or _TWINGATE_LEVELS.get(os.environ.get("TWINGATE_LOG_LEVEL", ""), "info"))
    roles.forbid_core_dumps()
    settings = config.load(
        tokens_file,
        url,
        ca,
        state,
        listen=None if listen is None else roles.host_port("--listen", listen),
        advertised=[roles.host_port("--advertise", text) for text in advertise],
        drain_seconds=drain_seconds,
        hole_punching=not no_hole_punching,
    )
    where = roles.metrics_address(metrics, "TWINGATE_METRICS_PORT")
    serve = with_workers(lambda stop: run(Connector(settings), where, stop), processes, limits.FRAME_SECONDS)
    roles.run_until_stopped(serve)


@connector.command()
@click.option("--state", required=True, type=click.Path(path_type=Path), help="The state folder of the running connector.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Wait no longer; default: until it has ended.")
@roles.JSON_OPTION
def drain(state: Path, timeout: float | None, as_json: bool) -> None:
    """End the connector of this machine without a failed connect: clients open new flows at another one first.

    Live flows have the --drain-seconds the connector was started with. Ends with 0 when all of them ended by themselves.
    With --json `flows` is how many were live at once.

    \b
    example: klinket connector drain --state /var/lib/klinket-connector
    """
    from klinket.connector.drain import drain as drain_running

    if timeout is not None:
        roles.check_timeout(timeout)
    flows: list[int] = []

    def tell(live: int) -> None:
        flows.append(live)
        click.echo(f"draining: {live} live flows", err=as_json)

    drain_running(state, tell, timeout)
    document = {"ok": True, "flows": max(flows, default=0)}
    roles.show("drained: the connector has ended, no flow was lost", document, as_json=as_json)
