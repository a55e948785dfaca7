"""`klinket ssh-proxy`."""

from __future__ import annotations

import click

from klinket.cli import roles
from klinket.domain.errors import InvalidInput


@click.command("ssh-proxy")
@roles.KEY_FILE_OPTION
@roles.TIMEOUT_OPTION
@click.option("--log-level", default="error", show_default=True, type=click.Choice(roles.LEVELS))
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65_535))
def ssh_proxy(key_file: str | None, timeout: float, log_level: str, host: str, port: int) -> None:
    """Carry standard input and output to a port of a granted resource, for ssh's ProxyCommand.

    Exit codes are those of `klinket run`; 0 when both ends have finished. The key never comes from standard input.

    \b
    example:
      ssh -o ProxyCommand='klinket ssh-proxy --key-file ci-runner.json %h %p' build@git.internal
    """
    from klinket.client.key_source import KeySource
    from klinket.client.ssh_proxy import run

    roles.end_at_ctrl_c()
    source = KeySource(key_file)
    if source.from_input:
        raise InvalidInput("--key-file", "standard input is what is carried", hint="give a file, or KLINKET_SERVICE_KEY")
    roles.check_timeout(timeout)
    roles.set_up_logging(log_level)
    roles.forbid_core_dumps()
    key = source.load()
    roles.run_until_stopped(lambda stop: run(key, host, port, timeout, stop))
