"""`klinket controller`."""

from __future__ import annotations

from pathlib import Path

import click

from klinket.cli import database, roles


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
    from klinket.net.sockets import HostPort

    roles.set_up_logging(log_level)
    roles.forbid_core_dumps()
    config = ControllerConfig(
        network=network,
        state=state,
        listen=HostPort.parse(listen),
        public_url=public_url,
        certificate=certificate,
        private_key=private_key,
        master_key_file=master_key_file,
        relay=HostPort.parse(with_relay) if with_relay else None,
        relay_listen=HostPort.parse(relay_listen) if relay_listen else None,
        grant_seconds=grant_seconds,
        postgres=given.address(),
    )
    roles.run_until_stopped(lambda stop: run(config, click.echo, stop))
