"""`klinket relay`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from klinket.cli import roles
from klinket.domain.errors import InvalidInput


@click.command()
@click.option("--controller", required=True, envvar="KLINKET_URL", metavar="URL", help="The controller, https://HOST:PORT.")
@click.option("--listen", default="0.0.0.0:8444", show_default=True, metavar="HOST:PORT")
@click.option("--advertise", metavar="HOST:PORT", help="What clients and connectors dial; default: as --listen.")
@click.option("--state", required=True, type=click.Path(path_type=Path), help="Folder of the relay's certificate.")
@click.option("--token-file", type=click.Path(path_type=Path, exists=True), help="Its token; or KLINKET_RELAY_TOKEN.")
@click.option("--ca", envvar="KLINKET_CA", type=click.Path(path_type=Path, exists=True), help="The controller's authority.")
@click.option("--drain-seconds", default=30.0, show_default=True, metavar="SECONDS", help="For pairs when it is stopped.")
@click.option("--datagram-port", type=click.IntRange(0, 65_535), metavar="PORT", help="UDP port; 0: none; default: as --listen.")
@roles.PROCESSES_OPTION
@roles.METRICS_OPTION
@click.option("--log-level", default="info", show_default=True, type=click.Choice(roles.LEVELS))
def relay(
    controller: str,
    listen: str,
    advertise: str | None,
    state: Path,
    token_file: Path | None,
    ca: Path | None,
    drain_seconds: float,
    datagram_port: int | None,
    processes: int | None,
    metrics: str | None,
    log_level: str,
) -> None:
    """Run a relay: it joins a client with a connector and moves bytes it cannot read.

    SIGHUP: take over the certificate that is in its state folder now, without dropping a pair.

    \b
    example: klinket relay --controller https://klinket.example.com --advertise relay1.example.com:8444 \\
                 --state /var/lib/klinket-relay --token-file token
    """
    from klinket.relay.config import MAX_DRAIN_SECONDS, RelayConfig
    from klinket.relay.serve import run

    roles.set_up_logging(log_level)
    roles.forbid_core_dumps()
    token = token_file.read_text().strip() if token_file else os.environ.pop("KLINKET_RELAY_TOKEN", "")
    if not token:
        raise InvalidInput("token", "no relay token", hint="give --token-file or set KLINKET_RELAY_TOKEN")
    if not 0 <= drain_seconds <= MAX_DRAIN_SECONDS:
        raise InvalidInput("drain-seconds", f"--drain-seconds is not between 0 and {MAX_DRAIN_SECONDS}")
    config = RelayConfig(
        listen=roles.host_port("--listen", listen),
        advertise=roles.host_port("--advertise" if advertise else "--listen", advertise or listen),
        controller=controller.rstrip("/"),
        token=token,
        state=state,
        controller_ca=ca.read_text() if ca else None,
        datagram_port=datagram_port,
        drain_seconds=drain_seconds,
        token_file=token_file,
        processes=processes,
        metrics=roles.metrics_address(metrics),
    )
    roles.run_until_stopped(lambda stop: run(config, stop, roles.asked_to_reload()))
