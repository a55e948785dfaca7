"""`klinket admin sink`: where audit and network events are delivered. Secrets come from files, never from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, Argument
from klinket.cli.admin.named import SINK
from klinket.cli.admin.output import print_secret, show_object, show_rows, told
from klinket.cli.admin.params import FILE, NAME, read_pem
from klinket.domain.errors import InvalidInput

SELECTION = "id name kind streams isEnabled where recipients createdAt lastDeliveredAt waiting attempts lastError nextTryAt"
MAX_SECRET_CHARS = 4096
_STREAMS = click.option(
    "--stream", "streams", multiple=True, type=click.Choice(["audit", "network", "warnings"]), help="May be repeated."
)
_OPTIONS = (
    click.option("--url", metavar="URL", help="Webhook: an https URL."),
    click.option("--address", metavar="HOST:PORT", help="Syslog and SMTP: always over TLS."),
    click.option("--authority", type=FILE, metavar="FILE", help="Certificates (PEM) that vouch for the receiver."),
    click.option("--sender", metavar="EMAIL", help="SMTP: who it is from."),
    click.option("--recipient", "recipients", multiple=True, metavar="EMAIL", help="SMTP: who gets it; may be repeated."),
    click.option("--user", metavar="NAME", help="SMTP: the name to log in with."),
    click.option("--secret-file", type=FILE, metavar="FILE", help="Webhook: what signatures are made with; SMTP: the password."),
)


def _with_options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def sink() -> None:
    """Sinks: webhooks, syslog and mail that get audit events, network events and warnings.

    \b
    example: klinket admin sink list
    """


def _secret(path: str) -> str:
    try:
        text = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("--secret-file", f"cannot read {path}: {getattr(error, 'strerror', None) or 'not text'}") from error
    if not 0 < len(text) <= MAX_SECRET_CHARS:
        raise InvalidInput("--secret-file", f"{path} holds {len(text)} characters: a secret has 1 to {MAX_SECRET_CHARS}")
    return text


def _arguments(streams: tuple[str, ...], given: dict[str, Any]) -> dict[str, Argument]:
    """Return the arguments of sinkCreate and sinkUpdate that were given."""
    found: dict[str, Argument] = {
        name: ("String", given[name]) for name in ("url", "address", "sender", "user") if given[name] is not None
    }
    if given["authority"] is not None:
        found["authority"] = ("String", read_pem("--authority", given["authority"]))
    if given["recipients"]:
        found["recipients"] = ("[String!]", list(given["recipients"]))
    if given["secret_file"] is not None:
        found["secret"] = ("String", _secret(given["secret_file"]))
    if streams:
        found["streams"] = ("[SinkStream!]", [stream.upper() for stream in streams])
    return found


@sink.command("list")
@with_api
def list_sinks(api: AdminApiClient, as_json: bool) -> None:
    """List sinks, and how delivery goes.

    \b
    example: klinket admin sink list
    """
    columns = {
        "NAME": "name", "KIND": "kind", "STREAMS": "streams", "WHERE": "where", "ENABLED": "isEnabled",
        "LAST DELIVERED": "lastDeliveredAt", "WAITING": "waiting", "LAST ERROR": "lastError", "ID": "id",
    }  # fmt: skip
    show_rows(list(SINK.rows(api, SELECTION)), columns, as_json=as_json, empty="no sink yet: klinket admin sink create --help")


@sink.command()
@SINK.argument()
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one sink, by name or id.

    \b
    example: klinket admin sink show siem
    """
    show_object(SINK.find(api, name, SELECTION), as_json=as_json)


@sink.command()
@click.argument("name", type=NAME)
@click.option("--kind", required=True, type=click.Choice(["webhook", "syslog", "smtp"]))
@_STREAMS
@_with_options
@with_api
def create(api: AdminApiClient, name: str, kind: str, streams: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Create a sink. It gets what happens from now on, in order, at least once.

    Without --stream: audit and warnings. A webhook's secret is made up without --secret-file, and shown this once.

    \b
    example: klinket admin sink create siem --kind webhook --url https://siem.example.com/klinket --stream audit
    """
    arguments = _arguments(streams or ("audit", "warnings"), given)
    arguments["streams"] = ("[SinkStream!]!", arguments["streams"][1])
    payload = api.extension.mutate(
        "sinkCreate",
        f"secret entity {{ {SELECTION} }}",
        name=("String!", name),
        kind=("SinkKind!", kind.upper()),
        **arguments,
    )
    if as_json:
        told("", {**payload["entity"], "secret": payload["secret"]}, as_json=True)
        return
    told(f"created sink {name}; try it: klinket admin sink test {name}", as_json=False)
    if payload["secret"]:
        print_secret(payload["secret"])


@sink.command()
@SINK.argument()
@click.option("--name", "new_name", type=NAME, metavar="NAME", help="A new name.")
@click.option("--enable/--disable", "enabled", default=None, help="Deliver, or not.")
@_STREAMS
@_with_options
@with_api
def update(
    api: AdminApiClient,
    name: str,
    new_name: str | None,
    enabled: bool | None,
    streams: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Change a sink; it is tried again at once.

    \b
    example: klinket admin sink update siem --disable
    """
    arguments = _arguments(streams, given)
    if new_name is not None:
        arguments["name"] = ("String", new_name)
    if enabled is not None:
        arguments["isEnabled"] = ("Boolean", enabled)
    if not arguments:
        raise InvalidInput("options", "nothing to change", hint="see klinket admin sink update --help")
    id = SINK.find(api, name)["id"]
    payload = api.extension.mutate("sinkUpdate", f"entity {{ {SELECTION} }}", id=("ID!", id), **arguments)
    told(f"changed sink {name}", payload["entity"], as_json=as_json)


@sink.command()
@SINK.argument()
@with_api
def test(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Send a test warning; `klinket admin sink show` then says how it went.

    \b
    example: klinket admin sink test siem
    """
    payload = api.extension.mutate("sinkTest", f"entity {{ {SELECTION} }}", id=("ID!", SINK.find(api, name)["id"]))
    told(f"sent a test to {name}; see: klinket admin sink show {name}", payload["entity"], as_json=as_json)


@sink.command()
@SINK.argument()
@with_api
def delete(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Delete a sink; what it has not got is not delivered any more.

    \b
    example: klinket admin sink delete siem
    """
    api.extension.mutate("sinkDelete", id=("ID!", SINK.find(api, name)["id"]))
    told(f"deleted sink {name}", as_json=as_json)
