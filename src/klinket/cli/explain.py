"""`klinket explain`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from klinket.cli import roles
from klinket.cli.exit_codes import EXIT_CODES, INTERNAL
from klinket.domain.errors import InvalidInput

if TYPE_CHECKING:
    from klinket.client.explain import Explanation


@click.command()
@roles.KEY_FILE_OPTION
@click.option("--udp", is_flag=True, help="UDP instead of TCP.")
@click.option("--icmp", is_flag=True, help="A ping instead of a connection: HOST without a port.")
@click.option("--timeout", default=30.0, show_default=True, metavar="SECONDS", help="For all steps together.")
@roles.JSON_OPTION
@click.option("--log-level", default="error", show_default=True, type=click.Choice(roles.LEVELS))
@click.argument("address", metavar="HOST:PORT")
def explain(key_file: str | None, udp: bool, icmp: bool, timeout: float, as_json: bool, log_level: str, address: str) -> None:
    """Go the way to an address step by step, and say where it ends, why, and what to do.

    The steps: key, account, resource, grant, path, connector, dns, dial. The address is really dialled, by the connector. The
    exit code is 0 when it is reached, else that of `klinket run` for what failed. Without a key it takes the one that this
    machine's daemon was set up with.

    \b
    example: klinket explain --key-file ci-runner.json db.internal:5432
    """
    from klinket.client.daemon.paths import Paths
    from klinket.client.explain import destination_of
    from klinket.client.explain import explain as find_out
    from klinket.client.key_source import KeySource
    from klinket.net.sockets import HostPort

    instead = None if key_file else Paths.from_environment().key_instead
    source = KeySource(key_file or (str(instead) if instead else None))
    roles.check_timeout(timeout)
    hint = "for example db.internal:5432, or [2001:db8::7]:5432"
    protocol = roles.protocol_of(udp=udp, icmp=icmp)
    try:
        wanted = HostPort(address.strip("[]"), 0) if icmp else HostPort.parse(address)
        destination = destination_of(wanted.host, wanted.port, protocol)
    except InvalidInput as error:
        raise InvalidInput("HOST:PORT", error.message, hint=hint) from error
    if not wanted.port and not icmp:
        raise InvalidInput("HOST:PORT", "ports are 1 to 65535", hint=hint)
    roles.set_up_logging(log_level)
    roles.forbid_core_dumps()
    try:
        found = roles.run_async(find_out(source.load, destination, timeout))
    except KeyboardInterrupt:  # the session was ended on the way here
        sys.exit(130)
    if as_json:
        import json

        click.echo(json.dumps(_document(found), indent=2))
    else:
        roles.show_steps(found.steps)
        click.echo(f"{destination} is {'not reached' if found.failed else 'reached'}")
    if found.failed is not None:
        sys.exit(EXIT_CODES.get(found.failed.code or "", INTERNAL))


def _document(found: Explanation) -> dict[str, Any]:
    failed = found.failed
    return {
        "host": found.destination.host,
        "port": found.destination.port,
        "protocol": found.destination.protocol.value,
        "reached": failed is None,
        "failed": None if failed is None else failed.name.value,
        "code": None if failed is None else failed.code,
        "resource": found.resource,
        "steps": [
            {"name": step.name.value, "ok": step.ok, "text": step.text, "evidence": list(step.evidence), "hint": step.hint}
            for step in found.steps
        ],
    }
