"""The examples that can be run are run, against a real controller."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.deployment import Deployment, clean_environment

EXAMPLES = Path(__file__).parents[2] / "examples"
CURL = EXAMPLES / "curl" / "service_key.sh"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("examples")) as deployment:
        deployment.start_controller()
        yield deployment


def run_curl(deployment: Deployment, key_file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"KLINKET_URL": deployment.url, "KLINKET_CA": str(deployment.authority), "KLINKET_API_TOKEN": deployment.api_token}
    return subprocess.run(
        [CURL, key_file], env={**clean_environment(), **settings, **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.skipif(shutil.which("jq") is None, reason="the example needs jq")
def test_the_curl_example_makes_everything_and_ends_the_key(deployment: Deployment, tmp_path: Path) -> None:
    key_file = tmp_path / "runner.json"
    done = run_curl(deployment, key_file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "ci/runner ACTIVE" in done.stdout
    assert "REVOKED" in done.stdout
    assert not key_file.exists()

    tokens = tmp_path / "runner.json.connector"
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    assert set(json.loads(tokens.read_text())) == {"access_token", "refresh_token", "url"}
    assert [row["name"] for row in deployment.admin("resource", "list")] == ["Orders database"]
    assert deployment.admin("service", "key", "list", "ci") == []
    for secret in (deployment.api_token, *json.loads(tokens.read_text()).values()):
        assert secret == deployment.url or secret not in done.stdout + done.stderr

    again = run_curl(deployment, key_file)  # what has a name already is said, not made twice
    assert again.returncode != 0
    assert "the controller says: " in again.stderr
    refused = run_curl(deployment, key_file, KLINKET_API_TOKEN="kl_api_wrong")
    assert refused.returncode != 0
    assert "authentication-failed" in refused.stderr


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_the_terraform_example_is_written_as_terraform_would() -> None:
    environment = {**clean_environment(), "CHECKPOINT_DISABLE": "1"}
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-diff", EXAMPLES / "terraform"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pulumi_example_is_python() -> None:
    compile((EXAMPLES / "pulumi" / "__main__.py").read_text(), "__main__.py", "exec")
