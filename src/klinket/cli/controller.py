"""`klinket controller`."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import click

from klinket.cli import database, oidc, roles, served


@click.command()
@click.option("--network", required=True, envvar="KLINKET_NETWORK", metavar="NAME", help="The network's name, e.g. acme.")
@click.option("--state", required=True, type=click.Path(path_type=Path), help="Folder of the database and keys.")
@database.options
@click.option("--listen", default="0.0.0.0:8443", show_default=True, metavar="HOST:PORT")
@click.option("--public-url", required=True, metavar="URL", help="What parts and key files use: https://HOST[:PORT].")
@click.option("--certificate", type=click.Path(path_type=Path, exists=True), help="TLS chain (PEM); default: own authority.")
@click.option("--key", "private_key", type=click.Path(path_type=Path, exists=True), help="Its private key (PEM).")
@click.option("--master-key-file", type=click.Path(path_type=Path), help="Seals keys at rest; made in --state by default.")
@click.option("--with-relay", metavar="HOST:PORT", help="Run a relay beside; clients and connectors dial this address.")
@click.option("--relay-listen", metavar="HOST:PORT", help="Where it listens; default: all addresses, or the IP of --with-relay.")
@click.option("--grant-seconds", default=300, show_default=True, help="Life of a grant: the bound while a channel is down.")
@click.option("--event-file", type=click.Path(path_type=Path), help="Append audit and network events there as JSON lines.")
@click.option("--event-file-bytes", default=104_857_600, show_default=True, help="Size at which the event file is rotated.")
@click.option("--event-files-kept", default=10, show_default=True, help="Rotated event files that are kept.")
@click.option("--events-to-stdout", is_flag=True, help="Write audit and network events to standard output as JSON lines.")
@click.option("--allow-outbound", multiple=True, metavar="CIDR", help="A private range that webhooks and others may be in.")
@click.option("--api-reads-per-minute", default=600, show_default=True, help="Admin API requests of a token; 0: no limit.")
@click.option("--api-writes-per-minute", default=200, show_default=True, help="Mutations of a token; 0: no limit.")
@click.option("--flow-days", default=30, show_default=True, help="Days for which network events are kept.")
@click.option("--flow-events", default=200_000, show_default=True, help="Network events kept; the oldest go first.")
@click.option("--audit-days", default=365, show_default=True, help="Days for which audit, cuts and receipts are kept.")
@click.option("--new-flows-per-second", default=500, show_default=True, help="Of a service account, at each connector.")
@click.option("--no-hole-punching", is_flag=True, envvar="KLINKET_NO_HOLE_PUNCHING", help="Behind NATs relays only.")
@oidc.options
@roles.METRICS_OPTION
@click.option("--log-level", default="info", show_default=True, type=click.Choice(roles.LEVELS))
def controller(
    network: str,
    state: Path,
    given: database.Given,
    listen: str,
    public_url: str,
    certificate: Path | None,
    private_key: Path | None,
    master_key_file: Path | None,
    with_relay: str | None,
    relay_listen: str | None,
    grant_seconds: int,
    event_file: Path | None,
    event_file_bytes: int,
    event_files_kept: int,
    events_to_stdout: bool,
    allow_outbound: tuple[str, ...],
    api_reads_per_minute: int,
    api_writes_per_minute: int,
    flow_days: int,
    flow_events: int,
    audit_days: int,
    new_flows_per_second: int,
    no_hole_punching: bool,
    identity_provider: oidc.Given,
    metrics: str | None,
    log_level: str,
) -> None:
    """Run the controller: the only authority, never on the path of traffic.

    \b
    example:
      klinket controller --network acme --state /var/lib/klinket \\
          --public-url https://klinket.example.com:8443 --with-relay klinket.example.com:8444
    """
    from klinket.controller.config import ControllerConfig
    from klinket.controller.serve import run

    roles.set_up_logging(log_level)
    roles.forbid_core_dumps()
    config = ControllerConfig(
        network=network,
        state=state,
        listen=roles.host_port("--listen", listen),
        public_url=public_url,
        certificate=certificate,
        private_key=private_key,
        master_key_file=master_key_file,
        relay=roles.host_port("--with-relay", with_relay) if with_relay else None,
        relay_listen=roles.host_port("--relay-listen", relay_listen) if relay_listen else None,
        grant_seconds=grant_seconds,
        event_file=event_file,
        event_file_bytes=event_file_bytes,
        event_files_kept=event_files_kept,
        events_to_stdout=events_to_stdout,
        allowed_outbound=tuple(_network(text) for text in allow_outbound),
        api_reads_per_minute=api_reads_per_minute,
        api_writes_per_minute=api_writes_per_minute,
        flow_days=flow_days,
        flow_events=flow_events,
        audit_days=audit_days,
        new_flows_per_second=new_flows_per_second,
        postgres=given.address(),
        oidc=identity_provider.settings(),
        hole_punching=not no_hole_punching,
        metrics=roles.metrics_address(metrics),
    )
    served.check(state, network)

    # What a log shipper reads must never hold the first token.
    def announce(text: str) -> None:
        click.echo(text, err=events_to_stdout)

    roles.run_until_stopped(lambda stop: run(config, announce, stop, lambda: served.remember(state, network, public_url)))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    from klinket.domain.errors import InvalidInput

    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidInput("allow-outbound", f"{error}", hint="for example --allow-outbound 10.20.0.0/16") from error
