"""docs/reference/options.md and metrics.md name every option and every metric there is, and no other."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from klinket.cli import relay as cli_relay
from klinket.cli.main import klinket
from klinket.client.daemon import observed as client_observed
from klinket.client.daemon.states import State, Verdict
from klinket.client.traffic import ClientTraffic
from klinket.connector import observed as connector_observed
from klinket.connector.bandwidth import Bandwidth
from klinket.connector.core import ConnectorCore
from klinket.connector.datagram_paths import DatagramPaths
from klinket.connector.traffic import Traffic
from klinket.controller.metrics import Metrics
from klinket.controller.peers import Peers
from klinket.domain.readiness import Readiness
from klinket.net import workers
from klinket.net.clock import PeerClock
from klinket.net.exposition import Exposition
from klinket.relay import observed as relay_observed
from klinket.relay.core import RelayCore
from klinket.relay.forwarding import DatagramForwarding
from klinket.relay.limits import RelayLimits
from klinket.relay.traffic import RelayTraffic
from klinket.wire.key_file import KeyFile

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
SECTIONS = dict(
    re.findall(r"^## klinket ([\w -]+)\n(.*?)(?=^## |\Z)", (REFERENCE / "options.md").read_text(), re.MULTILINE | re.DOTALL)
)
#: Commands that have a section; those of `klinket admin` tell their options with --help only.
COMMANDS = [
    "controller", "relay", "connector", "connector drain", "run",
    "setup", "start", "stop", "status", "wait", "resources", "config", "report", "daemon", "version",
    "client", "forward", "ssh-proxy", "explain", "doctor", "issue api-token", "issue accept-head",
    "issue signing-key", "revoke", "scan", "admin",
]  # fmt: skip


def command_of(path: str) -> click.Command:
    found: click.Command = klinket
    for word in path.split():
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), word)
        assert inner is not None, path
        found = inner
    return found


METRIC = r"\b(?:klinket|twingate|process)_\w+"


def texts() -> list[str]:
    """Return what each part serves: the metrics of parts that have just begun."""
    clock, core = PeerClock(), ConnectorCore()
    connector = connector_observed.Observed(
        core, Traffic(), Bandwidth(lambda _: 0), clock, lambda: False, lambda: False, list, False, DatagramPaths()
    )
    relay_core = RelayCore(RelayLimits(), os.urandom)
    forwarding = DatagramForwarding(relay_core, RelayLimits(), os.urandom, time.time, time.monotonic)
    relay = relay_observed.Observed(relay_core, clock, RelayTraffic(), lambda: 0, list, forwarding)
    key = KeyFile("acme", "a", "k", "", expires_at="2030-01-01T00:00:00Z")
    sessions = SimpleNamespace(current=None, traffic=ClientTraffic(), key_file=key, resources=(), flow_count=0, retiring_count=0)
    client: Any = sessions
    parts = [
        Exposition("client", client_observed.Observed(client, lambda: Verdict(State.ONLINE, "", "")).metrics),
        Metrics(Peers()).exposition,
        Exposition("connector", connector.metrics),
        Exposition("relay", relay.metrics),
    ]
    return [one.text(Readiness())[1].decode() for one in parts]


def exported() -> set[tuple[str, str]]:
    """Return name and type of every metric of any part. Counters have one as well that says when they began: not these."""
    found = {pair for text in texts() for pair in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)}
    return {(name, kind) for name, kind in found if not name.endswith("_created")}


def expressions(name: str) -> list[str]:
    """Return the queries of a dashboard, or of a file of rules."""
    text = (REFERENCE.parents[1] / "packaging" / name).read_text()
    if name.endswith(".json"):
        panels = json.loads(text)["panels"]
        return [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return re.findall(r"^\s+expr: (.+)$", text, re.MULTILINE)


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


@pytest.mark.parametrize("path", ["issue relay-token", "issue admin-link"])
def test_the_commands_of_issue_take_the_same_options(path: str) -> None:
    own = {"issue accept-head": {"--yes"}}.get(path, set())
    assert {one.opts[0] for one in command_of(path).params if isinstance(one, click.Option)} - own == {
        one.opts[0] for one in command_of("issue api-token").params if isinstance(one, click.Option)
    }


def test_every_metric_is_documented_with_its_type() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (gauge|counter) \|", (REFERENCE / "metrics.md").read_text(), re.MULTILINE)
    assert set(rows) == exported()
    assert len(rows) == len(set(rows)) > 20


SHIPPED = ["grafana/klinket.json", "prometheus/klinket.rules.yml"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_dashboard_or_rule_asks_only_for_metrics_that_are_exported(name: str) -> None:
    asked = {found for expression in expressions(name) for found in re.findall(METRIC, expression)}
    served = {metric.removesuffix("_total") if kind == "counter" else metric for metric, kind in exported()}
    counters = {metric for metric, kind in exported() if kind == "counter"}
    assert len(asked) > 5
    assert {one for one in asked if one not in counters and one not in served} == set()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_dashboard_or_rule_names_only_labels_and_values_there_are(name: str) -> None:
    """A misspelt value of a label would be an alert that never fires."""
    known = set(re.findall(r"`([\w-]+)`", (REFERENCE / "metrics.md").read_text()))
    for expression in expressions(name):
        for value in re.findall(r'=~?"([\w.|-]+)"', expression):
            assert set(value.split("|")) <= known, expression


def test_as_many_processes_may_be_asked_for_as_there_may_be() -> None:
    """The number stands twice: the command line does not load what starts workers."""
    (option,) = (one for one in cli_relay.relay.params if one.name == "processes")
    assert isinstance(option.type, click.IntRange)
    assert (option.type.min, option.type.max) == (1, workers.MAX_PROCESSES)
