"""Every command of `klinket admin` tells what it does, shows an example that could be typed, and speaks JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from klinket.cli.admin import admin
from klinket.cli.main import klinket


def leaves(command: click.Command, path: tuple[str, ...] = ("admin",)) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that does something, with the words that lead to it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, (*path, name))


COMMANDS = list(leaves(admin))


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) > 75


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path[1:]) for path, _ in COMMANDS])
def test_a_command_has_help_an_example_and_json(
    path: tuple[str, ...], command: click.Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = CliRunner().invoke(klinket, [*path, "--help"])
    assert shown.exit_code == 0
    assert "--json" in shown.output
    example = (command.help or "").partition("example: ")[2].replace("\\\n", " ").splitlines()
    assert example, "no example"
    words = shlex.split(example[0])
    assert words[: 1 + len(path)] == ["klinket", *path]
    monkeypatch.chdir(tmp_path)
    for name in words:
        if name.endswith((".json", ".jsonl", ".gz", ".pub")):
            (tmp_path / name).touch()
    command.make_context(path[-1], words[1 + len(path) :])


@pytest.mark.parametrize("noun", sorted({path[1] for path, _ in COMMANDS if len(path) > 2}))
def test_a_noun_has_help_with_an_example(noun: str) -> None:
    shown = CliRunner().invoke(klinket, ["admin", noun, "--help"])
    assert f"example: klinket admin {noun} " in shown.output
