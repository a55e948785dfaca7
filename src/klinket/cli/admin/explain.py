"""`klinket admin explain`: why a service account reaches an address, or why not."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli import roles
from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.named import SERVICE
from klinket.cli.admin.output import show_object
from klinket.domain.errors import InvalidInput
from klinket.domain.explanation import Step, StepName
from klinket.net.sockets import HostPort


@click.command()
@SERVICE.argument("service")
@click.argument("address", metavar="HOST:PORT")
@click.option("--udp", is_flag=True, help="UDP instead of TCP.")
@click.option("--icmp", is_flag=True, help="A ping instead of a connection: HOST without a port.")
@with_api
def explain(api: AdminApiClient, service: str, address: str, udp: bool, icmp: bool, as_json: bool) -> None:
    """Say why a service account reaches an address, or why not and what to do. Exit code 68 when it may not.

    The steps are those of `klinket explain`, which tries them with a key; here dns and dial are how the last connection went.

    \b
    example: klinket admin explain ci db.internal:5432
    """
    protocol = roles.protocol_of(udp=udp, icmp=icmp)
    try:
        wanted = HostPort(address.strip("[]"), 0) if icmp else HostPort.parse(address)
    except InvalidInput as error:
        raise InvalidInput("HOST:PORT", error.message, hint="for example db.internal:5432, or [2001:db8::7]:5432") from error
    document = (
        "query($id: ID!, $host: String!, $port: Int!, $protocol: FlowProtocol) { explain(serviceAccountId: $id, host: $host,"
        " port: $port, protocol: $protocol) { allowed resourceId resourceName steps { name ok text evidence hint code } } }"
    )
    told = api.extension.execute(
        document,
        id=SERVICE.find(api, service)["id"],
        host=wanted.host,
        port=wanted.port,
        protocol=protocol.name,
    )["explain"]
    if as_json:
        show_object(told, as_json=True)
    else:
        roles.show_steps(_step(step) for step in told["steps"])
        click.echo(f"{service} {'reaches' if told['allowed'] else 'does not reach'} {wanted.host if icmp else wanted}")
    if not told["allowed"]:
        raise click.exceptions.Exit(NOT_ALLOWED)


def _step(told: dict[str, Any]) -> Step:
    return Step(StepName(told["name"]), told["ok"], told["text"], tuple(told["evidence"]), told["hint"], told["code"])


#: As `not-granted`, whichever condition is not met: scripts ask yes or no.
NOT_ALLOWED = 68
