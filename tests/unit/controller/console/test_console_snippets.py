"""The texts that the console offers with a new key: well-formed, safe to paste, and without the key."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from klinket.client import key_source
from klinket.controller.console.team.services.snippets import VARIABLE, file_name, snippets

NAMES = ["ci", "Deploy: production", "$(reboot)", "-rf /", "../../etc", "'; exit", "Übung", "   ", "{{ x }}", "x" * 300]


def test_the_variable_is_the_one_that_the_client_reads() -> None:
    assert VARIABLE == key_source.VARIABLE


@pytest.mark.parametrize("name", NAMES)
def test_whatever_an_account_is_called_its_file_is_a_plain_word(name: str) -> None:
    file = file_name(name)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,59}\.json", file)
    assert shlex.quote(file) == file


@pytest.mark.parametrize("name", NAMES)
def test_the_texts_for_ci_systems_and_kubernetes_are_yaml(name: str) -> None:
    yaml: Any = pytest.importorskip("yaml")
    by_id = {one.id: one.text for one in snippets(name)}
    github, gitlab, job = (yaml.safe_load(by_id[id]) for id in ("github", "gitlab", "kubernetes"))
    step = github["jobs"]["test"]["steps"][-1]
    assert step == {"run": "klinket run -- ./your-command", "env": {VARIABLE: "${{ secrets.KLINKET_SERVICE_KEY }}"}}
    assert gitlab["test"]["script"] == ["klinket run --capture proxy -- ./your-command"]
    pod = job["spec"]["template"]["spec"]
    mount, volume = pod["containers"][0]["volumeMounts"][0], pod["volumes"][0]
    assert mount["name"] == volume["name"]
    assert f"{mount['mountPath']}/key.json" in pod["containers"][0]["command"]
    assert f"generic {volume['secret']['secretName']} " in by_id["kubernetes"]


def test_every_text_calls_klinket_and_says_what_to_do_before() -> None:
    for one in snippets("ci"):
        assert re.search(r"klinket,? (run|client)", one.text.replace(", ", " ")), one.id
        assert one.note.endswith("."), one.id
    assert len({one.id for one in snippets("ci")}) == len(snippets("ci")) >= 6
