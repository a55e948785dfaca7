"""`klinket explain` and `klinket admin explain` tell one story of a real network, with the exit codes of `klinket run`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.deployment import clean_environment
from tests.integration.conftest import ECHO_NAME, Loopback
from tests.integration.test_bad_input import REFUSING, UNKNOWN_NAME

pytestmark = pytest.mark.timeout(120)


def explained(world: Loopback, address: str, *options: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "klinket", "explain", "--key-file", str(key or world.key), *options, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment())


def test_what_is_reached_ends_with_0(loopback: Loopback) -> None:
    done = explained(loopback, f"{ECHO_NAME}:{loopback.echo_port}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line[:3] for line in done.stdout.splitlines()[:-1] if line[:3].strip()] == ["ok "] * 8
    assert done.stdout.splitlines()[-1] == f"tcp {ECHO_NAME}:{loopback.echo_port} is reached"


@pytest.fixture(scope="module")
def revoked(loopback: Loopback) -> Path:
    key = loopback.deployment.add_key("ci", "revoked")
    loopback.deployment.admin("service", "key", "revoke", "ci", "revoked")
    return key


@pytest.mark.parametrize(
    ("address", "code", "step", "word"),
    [
        (f"{REFUSING}:80", 71, "dial", "refused"),
        (f"{UNKNOWN_NAME}:80", 70, "dns", "name-not-found"),
        (f"{ECHO_NAME}:9", 68, "grant", "not-granted"),
        ("other.internal:80", 68, "resource", "not-granted"),
    ],
)
def test_the_first_failing_step_has_its_exit_code(loopback: Loopback, address: str, code: int, step: str, word: str) -> None:
    loopback.grant("ci", f"Refuses {address}", REFUSING)
    loopback.grant("ci", f"Unknown {address}", UNKNOWN_NAME)
    done = explained(loopback, address, "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["reached"], told["failed"], told["code"]) == (code, False, step, word)
    assert told["steps"][-1]["hint"]


def test_a_revoked_key_ends_with_67(loopback: Loopback, revoked: Path) -> None:
    done = explained(loopback, f"{ECHO_NAME}:1", key=revoked)
    assert done.returncode == 67
    assert done.stdout.startswith("NO  key ")


def test_without_a_key_it_takes_the_daemons(loopback: Loopback, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "klinket", "explain", "--json", f"{ECHO_NAME}:{loopback.echo_port}"]
    environment = clean_environment() | {"KLINKET_ETC": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert "no service key was given" in done.stdout + done.stderr
    shutil.copy(loopback.key, tmp_path / "service_key.json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, json.loads(done.stdout)["reached"]) == (0, True), done.stderr


def test_a_mistake_ends_with_2(loopback: Loopback) -> None:
    for address in ("db.internal", "db.internal:0", "a b:1", ":1"):
        done = explained(loopback, address)
        assert (done.returncode, done.stdout) == (2, "")
        assert "for example db.internal:5432" in done.stderr


def test_an_admin_sees_the_same_steps_and_how_the_last_connection_went(loopback: Loopback) -> None:
    loopback.grant("ci", "Refuses the admin", REFUSING)
    address = f"{REFUSING}:81"
    assert explained(loopback, address).returncode == 71
    deadline = time.monotonic() + 20
    while True:
        told = loopback.deployment.admin("explain", "ci", address)
        steps = {step["name"]: step for step in told["steps"]}
        if "dial" in steps or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert list(steps) == ["key", "account", "resource", "grant", "path", "connector", "dns", "dial"]
    assert told["allowed"] is True
    assert (steps["dial"]["ok"], steps["dial"]["code"]) == (False, "refused")
