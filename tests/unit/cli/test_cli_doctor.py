"""`klinket doctor`: lines for people, JSON for scripts, and an exit code that says whether something fails."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from examples.deployment import free_port
from klinket.cli.doctor import FOUND, doctor
from klinket.domain.errors import InvalidInput
from klinket.wire import signing
from klinket.wire.key_file import KeyFile
from tests.unit.cli.conftest import Admin


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KLINKET_SERVICE_KEY", "KLINKET_URL", "KLINKET_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KLINKET_ETC", str(tmp_path / "etc"))


def test_a_key_that_is_missing_is_found_and_said_how_to_give() -> None:
    done = CliRunner().invoke(doctor, [])
    assert done.exit_code == FOUND
    assert "FAIL settings" in done.stdout
    assert "-> use --key-file FILE" in done.stdout
    assert "1 fail" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("role", ["client", "connector"])
def test_a_part_without_credentials_is_not_well_though_the_environment_names_the_controller(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KLINKET_ACCESS_TOKEN", "KLINKET_REFRESH_TOKEN", "TWINGATE_ACCESS_TOKEN", "TWINGATE_REFRESH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KLINKET_URL", f"https://127.0.0.1:{free_port()}")
    done = CliRunner().invoke(doctor, ["--role", role, "--timeout", "1"])
    assert done.exit_code == FOUND
    assert "FAIL settings" in done.stdout


def test_json_has_the_same_checks_and_counts_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(doctor, ["--role", "controller", "--state", str(tmp_path / "nothing"), "--json"])
    document = json.loads(done.stdout)
    assert done.exit_code == FOUND
    assert document["role"] == "controller"
    assert document["ok"] + document["warn"] + document["fail"] == len(document["checks"])
    (wrong,) = [one for one in document["checks"] if one["outcome"] == "fail"]
    assert wrong.keys() == {"name", "outcome", "text", "next"}
    assert wrong["name"] == "state"


async def test_no_two_checks_have_the_same_name(admin: Admin) -> None:
    where = ["--url", admin.environment["KLINKET_URL"], "--ca", admin.environment["KLINKET_CA"]]
    words = ["--role", "controller", *where, "--metrics", f"127.0.0.1:{free_port()}", "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, doctor, words)
    names = [one["name"] for one in json.loads(done.stdout)["checks"]]
    assert {"ready", "controller-ready"} < set(names)
    assert len(names) == len(set(names))


def test_nothing_that_fails_is_well(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    done = CliRunner().invoke(doctor, ["--role", "controller", "--state", str(tmp_path), "--listen", "127.0.0.1:0"])
    assert done.exit_code == 0, done.stdout


def a_key(folder: Path) -> Path:
    """Write a key of a controller that is not there."""
    pem = signing.private_key_to_pem(signing.generate_private_key())
    account = "00000000-0000-4000-8000-000000000001"
    path = folder / "key.json"
    path.write_text(KeyFile(f"127.0.0.1:{free_port()}", account, "k1", pem).to_json())
    return path


@pytest.mark.parametrize(("mode", "outcome"), [(0o600, "ok"), (0o640, "fail")])
def test_a_key_file_is_for_its_owner_alone(tmp_path: Path, mode: int, outcome: str) -> None:
    key = a_key(tmp_path)
    key.chmod(mode)
    done = CliRunner().invoke(doctor, ["--key-file", str(key), "--json"])
    found = {one["name"]: one["outcome"] for one in json.loads(done.stdout)["checks"]}
    assert (found["settings"], found["key-file"], found["port"]) == ("ok", outcome, "fail")
    assert "PRIVATE KEY" not in done.stdout


@pytest.mark.parametrize(
    "options", [["--url", "http://127.0.0.1"], ["--listen", "nonsense", "--role", "controller"], ["--timeout", "0"]]
)
def test_an_option_that_is_none_is_named(options: list[str]) -> None:
    done = CliRunner().invoke(doctor, options)
    assert isinstance(done.exception, InvalidInput)
    assert done.exception.field.strip("-") == options[0].strip("-")
