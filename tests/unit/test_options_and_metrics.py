"""docs/reference/options.md and metrics.md name every option and every metric there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from klinket.cli.main import klinket
from klinket.controller.metrics import Metrics
from klinket.controller.peers import Peers

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
SECTIONS = dict(
    re.findall(r"^## klinket ([\w -]+)\n(.*?)(?=^## |\Z)", (REFERENCE / "options.md").read_text(), re.MULTILINE | re.DOTALL)
)
#: Commands that have a section; those of `klinket admin` tell their options with --help only.
COMMANDS = [
    "controller", "relay", "connector", "connector drain", "run",
    "setup", "start", "stop", "status", "wait", "resources", "config", "report", "daemon", "version",
    "client", "forward", "ssh-proxy", "explain", "issue api-token", "issue signing-key", "revoke", "scan", "admin",
]  # fmt: skip


def command_of(path: str) -> click.Command:
    found: click.Command = klinket
    for word in path.split():
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), word)
        assert inner is not None, path
        found = inner
    return found


def documented(section: str) -> dict[str, list[str]]:
    """Return the cells of each option's row: environment, default, words."""
    rows = re.findall(r"^\| `(--[\w-]+)` \|(.*)\|$", section, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def test_every_command_that_is_no_admin_command_has_a_section() -> None:
    assert list(SECTIONS) == COMMANDS
    names = set(klinket.list_commands(click.Context(klinket)))
    assert names - {path.split()[0] for path in COMMANDS} == {"completion"}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_documented_with_its_default_and_variable(path: str) -> None:
    command = command_of(path)
    options = {one.opts[0]: one for one in command.params if isinstance(one, click.Option) and not one.hidden}
    rows = documented(SECTIONS[path])
    assert set(rows) == set(options) - {"--help"}
    for name, option in options.items():
        environment, default, words = rows[name]
        assert words.endswith("."), name
        if option.required:
            assert default == "required", name
        elif option.show_default:
            assert default == f"`{option.default}`", name
        if option.envvar:
            assert f"`{option.envvar}`" in environment, name


def test_every_variable_that_is_documented_is_read_somewhere() -> None:
    source = "\n".join(path.read_text() for path in (REFERENCE.parents[1] / "src").rglob("*.py"))
    named = {name for section in SECTIONS.values() for name in re.findall(r"`((?:KLINKET|TWINGATE)_[A-Z_]*[A-Z])`", section)}
    assert len(named) > 10
    assert {name for name in named if not re.search(rf"\b{name}\b", source)} == set()


@pytest.mark.parametrize("path", ["issue relay-token", "issue admin-link", "issue accept-head"])
def test_the_commands_of_issue_take_the_same_options(path: str) -> None:
    assert {one.opts[0] for one in command_of(path).params if isinstance(one, click.Option)} == {
        one.opts[0] for one in command_of("issue api-token").params if isinstance(one, click.Option)
    }


def test_every_metric_is_documented_with_its_type() -> None:
    text = Metrics(Peers()).text().decode()
    served = set(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    rows = re.findall(r"^\| `(klinket_\w+)` \| (\w+) \|", (REFERENCE / "metrics.md").read_text(), re.MULTILINE)
    assert set(rows) == served
    assert len(served) > 3
