"""The `klinket` command. Roles are imported when they are asked for: `klinket --version` stays fast."""

from __future__ import annotations

import os
import sys
from typing import ClassVar

import click

from klinket.wire.version import PRODUCT_VERSION

#: When it is set, an error that nobody expected shows where it happened.
TRACEBACK_VARIABLE = "KLINKET_TRACEBACK"
#: Set by the scripts of tab completion, which ask for words.
COMPLETION_VARIABLE = "_KLINKET_COMPLETE"


class LazyCommands(click.Group):
    """A group that imports a command's module when the command is looked up."""

    MODULES: ClassVar[dict[str, str]] = {
        "run": "run a command with access to what its service account was granted",
        "setup": "give this machine's daemon its service key",
        "start": "start this machine's daemon",
        "stop": "end it and undo all it did",
        "status": "say its state in one word",
        "wait": "wait until it is usable",
        "resources": "list what is granted to it",
        "config": "show or set what it does",
        "report": "write a ZIP that helps to find a fault",
        "daemon": "be the daemon, in the foreground",
        "version": "print the version",
        "client": "serve granted resources to programs through local proxies",
        "forward": "make granted resources ports of this machine",
        "ssh-proxy": "carry ssh to a granted resource, as its ProxyCommand",
        "doctor": "look at this machine for what keeps a part from working",
        "explain": "find out why an address is reached, or why not",
        "connector": "connect a private network",
        "relay": "join clients with connectors",
        "controller": "decide who may reach what",
        "issue": "make tokens, links for admins and signing keys on the controller's machine",
        "revoke": "end a service key with the key itself",
        "scan": "find service keys and tokens that lie where they should not",
        "admin": "manage networks, connectors, resources, services, keys",
    }

    #: Names that scripts know from elsewhere; not listed.
    OTHER_NAMES: ClassVar[dict[str, str]] = {"service-start": "start"}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names without importing anything."""
        return [*self.MODULES, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return one command."""
        name = self.OTHER_NAMES.get(name, name)
        if name not in self.MODULES:
            return super().get_command(ctx, name)
        from importlib import import_module

        word = name.replace("-", "_")
        command: click.Command = getattr(import_module(f"klinket.cli.{word}"), word)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with what each is for, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([*self.MODULES.items(), ("completion", "print shell completion")])


@click.group(cls=LazyCommands)
@click.version_option(PRODUCT_VERSION, message="klinket %(version)s")
def klinket() -> None:
    """Zero-trust access to private networks for machines.

    \b
    example: klinket run --key-file ci-runner.json -- psql -h db.internal
    """


@klinket.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print tab completion for a shell.

    \b
    example: klinket completion bash > /etc/bash_completion.d/klinket
    """
    from click.shell_completion import get_completion_class

    from klinket.cli import bash_completion

    bash_completion.register()
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(klinket, {}, "klinket", COMPLETION_VARIABLE).source())


def main() -> None:
    """Run the command; klinket's own errors end with one line, a hint and a stable exit code."""
    from klinket.cli.exit_codes import INTERNAL, exit_code
    from klinket.domain.errors import InvalidInput, KlinketError
    from klinket.domain.printable import escaped

    if COMPLETION_VARIABLE in os.environ:
        from klinket.cli import bash_completion

        bash_completion.register()
    try:
        klinket(prog_name="klinket")
    except KlinketError as error:
        word = getattr(getattr(error, "failure", None), "value", None) or error.code
        where = f"{error.field}: " if isinstance(error, InvalidInput) else ""
        print(escaped(f"klinket: {word}: {where}{error.message}"), file=sys.stderr)
        if error.hint:
            print(escaped(f"  hint: {error.hint}"), file=sys.stderr)
        sys.exit(exit_code(error))
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(escaped(f"klinket: internal: {error.strerror or error}{where}"), file=sys.stderr)
        if isinstance(error, PermissionError):
            print("  hint: run it as root, or name a folder this user may write to", file=sys.stderr)
        sys.exit(INTERNAL)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        print(escaped(f"klinket: internal: {type(error).__name__}: {error}"), file=sys.stderr)
        print(f"  hint: this is a fault of klinket; with {TRACEBACK_VARIABLE}=1 it says where", file=sys.stderr)
        sys.exit(INTERNAL)
