"""requirements/*.lock hold what pyproject.toml asks for, in the versions that were tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {"client": (), "controller": ("controller", "connector", "relay", "cli", "postgres", "oidc")}


def locked(name: str) -> dict[str, str]:
    """Return the entry of each distribution, hashes included."""
    entries = re.findall(r"^[a-z].*(?:\n    .*)*\n", (ROOT / "requirements" / f"{name}.lock").read_text(), re.MULTILINE)
    return {entry.partition("==")[0]: entry for entry in entries}


def asked(extras: tuple[str, ...]) -> set[str]:
    """Return the distributions that klinket with these extras asks for itself."""
    wanted = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    return {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in wanted}


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_holds_all_that_is_asked_for(name: str) -> None:
    assert asked(EXTRAS[name]) <= locked(name).keys()


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_holds_what_was_tested_and_by_hash(name: str) -> None:
    tested = locked("dev")
    for distribution, entry in locked(name).items():
        assert entry == tested[distribution]
        assert "--hash=sha256:" in entry
