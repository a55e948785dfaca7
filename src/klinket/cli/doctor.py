"""`klinket doctor`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from klinket.cli import roles
from klinket.domain.printable import escaped

if TYPE_CHECKING:
    from klinket.doctor.finding import Finding

#: As `klinket scan` has it: 0 is well.
FOUND = 1
ROLES = ("controller", "connector", "relay", "client")


@click.command()
@click.option("--role", type=click.Choice(ROLES), default="client", show_default=True, help="Whose needs are looked at.")
@click.option("--url", envvar="KLINKET_URL", metavar="URL", help="The controller; default: what the key or tokens file says.")
@click.option("--ca", envvar="KLINKET_CA", type=click.Path(path_type=Path), help="The controller's authority (PEM).")
@click.option("--key-file", type=click.Path(path_type=Path), help="A client's service key; default: KLINKET_SERVICE_KEY.")
@click.option("--tokens-file", type=click.Path(path_type=Path), help="A connector's tokens.")
@click.option("--state", type=click.Path(path_type=Path), help="The part's state folder.")
@click.option("--certificate", type=click.Path(path_type=Path), help="A controller's own TLS chain (PEM).")
@click.option("--listen", metavar="HOST:PORT", help="Where the part listens, or is to.")
@click.option("--metrics", metavar="HOST:PORT", help="Where the running part serves its metrics: is it ready?")
@click.option("--timeout", default=5.0, show_default=True, metavar="SECONDS", help="For each step over the network.")
@roles.JSON_OPTION
def doctor(
    role: str,
    url: str | None,
    ca: Path | None,
    key_file: Path | None,
    tokens_file: Path | None,
    state: Path | None,
    certificate: Path | None,
    listen: str | None,
    metrics: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Look at this machine for what keeps a part from working, and say what to do.

    Versions, clock, disk, certificates, open files, ports, name, and the way to the controller. Nothing is changed, and nobody
    logs in: `klinket explain` goes the whole way to a resource. Ends with 0 when nothing fails, warnings or not, else with 1.

    \b
    example: klinket doctor --key-file ci-runner.json
             klinket doctor --role relay --url https://klinket.example.com --state /var/lib/klinket-relay --listen 0.0.0.0:8444
    """
    from klinket.cli.doctor_settings import Given
    from klinket.doctor.examination import steps

    roles.check_timeout(timeout)
    given = Given(
        role=role,
        url=url,
        ca=ca,
        key_file=key_file,
        tokens_file=tokens_file,
        state=state,
        certificate=certificate,
        listen=listen,
        metrics=metrics,
        timeout=timeout,
        url_alone=click.get_current_context().get_parameter_source("url") is click.core.ParameterSource.COMMANDLINE,
    )
    found: list[Finding] = []
    for name, check in steps(given.asked()):
        findings = iter(check())
        while True:
            with _progress(name, shown=not as_json):
                finding = next(findings, None)
            if finding is None:
                break
            found.append(finding)
            if not as_json:
                _show(finding)
    counts = {word: sum(one.outcome.value == word for one in found) for word in ("ok", "warn", "fail")}
    if as_json:
        click.echo(json.dumps({"role": role, **counts, "checks": [one.document() for one in found]}, indent=2))
    else:
        click.echo(f"{counts['fail']} fail, {counts['warn']} warn, {counts['ok']} ok")
    sys.exit(FOUND if counts["fail"] else 0)


@contextmanager
def _progress(name: str, *, shown: bool) -> Iterator[None]:
    """Say on a terminal what is being looked at, while it is."""
    if not shown or not sys.stderr.isatty():
        yield
        return
    click.echo(f"...  {name}", err=True, nl=False)
    try:
        yield
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


def _show(finding: Finding) -> None:
    word = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}[finding.outcome.value]
    click.echo(escaped(f"{word} {finding.name:<17} {finding.text}"))
    if finding.next:
        click.echo(escaped(f"{'':22} -> {finding.next}"))
