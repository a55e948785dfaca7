"""`klinket run`."""

from __future__ import annotations

import gc
import sys

import click

from klinket.cli import roles
from klinket.domain.errors import InvalidInput
from klinket.domain.printable import escaped

#: As wire.control.MAX_ONLY has it, which is not imported for it.
MAX_ONLY, MAX_ONLY_CHARACTERS = 64, 256


@click.command(context_settings={"allow_interspersed_args": False})
@roles.KEY_FILE_OPTION
@click.option(
    "--wait",
    multiple=True,
    metavar="RESOURCE",
    help="Begin when this one answers, by name, alias or address; with :PORT it is dialled as well. Repeatable.",
)
@roles.TIMEOUT_OPTION
@click.option(
    "--capture",
    type=click.Choice(["auto", "namespace", "proxy"]),
    default="auto",
    show_default=True,
    help="How connections are captured: all of them in a namespace, or those of programs that heed proxy variables.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="RESOURCE",
    help="What of the granted resources the command may use, by name, alias or address. Repeatable. Default: all of them.",
)
@click.option(
    "--env-proxy", is_flag=True, help="Also name proxies in the command's environment, for programs that resolve names."
)
@click.option("--host-loopback", is_flag=True, help="Lead 100.127.255.2, host.klinket.internal, to this machine's own loopback.")
@click.option(
    "--pass-fd",
    type=click.IntRange(min=3),
    multiple=True,
    metavar="NUMBER",
    help="An open file that the command gets; all others above 2 are closed. Repeatable.",
)
@click.option("--log-level", default="error", show_default=True, type=click.Choice(roles.LEVELS))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENTS]...")
def run(
    key_file: str | None,
    wait: tuple[str, ...],
    timeout: float,
    capture: str,
    only: tuple[str, ...],
    env_proxy: bool,
    host_loopback: bool,
    pass_fd: tuple[int, ...],
    log_level: str,
    command: tuple[str, ...],
) -> None:
    """Run a command with access to what the key's service account was granted. Needs no root.

    The command begins when a connector of each granted network answers. Its exit code is passed on; klinket's own failures
    have codes of their own: 65 key not usable, 66 expired, 67 revoked, 68 not granted, 69 no connector, 70 name not found,
    71 refused, 72 timed out, 73 throttled, 74 controller unreachable, 75 capture impossible.

    This is capture, not a sandbox: the command can do what its user can do.

    \b
    example: klinket run --key-file ci-runner.json --wait db.internal:5432 -- psql -h db.internal
    """
    roles.end_at_ctrl_c()
    gc.disable()  # until the command runs: what is imported stays, and looking through it takes a tenth of the time
    roles.check_timeout(timeout)
    for wanted in wait:
        check_wait(wanted)
    check_only(only)
    from klinket.client.capture.command import NotExecuted
    from klinket.client.key_source import KeySource
    from klinket.client.run import RunSettings
    from klinket.client.run import run as run_command

    roles.set_up_logging(log_level)
    roles.forbid_core_dumps(later=True)
    try:
        settings = RunSettings(command, wait, timeout, capture, pass_fd, only, env_proxy, host_loopback)
        sys.exit(run_command(KeySource(key_file), settings, roles.run_async))
    except NotExecuted as error:
        click.echo(escaped(f"klinket: {error.code}: {error.message}"), err=True)
        sys.exit(error.exit_code)


def check_wait(text: str) -> None:
    """Check the form of what `--wait` names; raises InvalidInput."""
    hint = "give a granted resource by name, alias or address, with :PORT to be dialled as well: --wait db.internal:5432"
    host, colon, port = text.rpartition(":")
    if not text.strip():
        raise InvalidInput("--wait", "it is empty", hint=hint)
    if colon and port.isdigit() and ":" not in host.partition("[")[0]:  # an IPv6 address ends in digits as well
        if not host.strip():
            raise InvalidInput("--wait", f"no resource before the port in {text[:80]!r}", hint=hint)
        if not 1 <= int(port[:6]) <= 65_535:
            raise InvalidInput("--wait", f"no port: {port[:10]}; ports are 1 to 65535", hint=hint)


def check_only(wanted: tuple[str, ...]) -> None:
    """Check the form of what `--only` names; raises InvalidInput."""
    if len(wanted) > MAX_ONLY or any(not text.strip() or len(text) > MAX_ONLY_CHARACTERS for text in wanted):
        hint = "give granted resources by name, alias or address, without ports: --only db.internal"
        raise InvalidInput("--only", f"it is empty, too long, or given more than {MAX_ONLY} times", hint=hint)
