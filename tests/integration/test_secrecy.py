"""After real use, logs, database and audit hold no private key, token or assertion."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.integration.conftest import Loopback

pytestmark = pytest.mark.alone

#: A signed JWT (assertion, grant, access token): three base64url parts, the first two JSON objects.
JWT = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}")


def files_of(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_no_secret_rests_in_logs_database_or_audit(loopback: Loopback) -> None:
    deployment = loopback.deployment
    with loopback.dial() as flow:
        loopback.echo(flow)
    extra = deployment.add_key("ci", "to-be-revoked")
    deployment.admin("service", "key", "revoke", "ci", "to-be-revoked")
    secrets = {"API token": deployment.api_token.encode()}
    for key in (loopback.key, extra):
        pem = json.loads(key.read_text())["private_key"]
        for number, line in enumerate(pem.strip().splitlines()[1:-1]):
            secrets[f"line {number} of {key.name}"] = line.encode()
    tokens = json.loads((deployment.directory / "office-1.json").read_text())
    secrets["connector access token"] = tokens["access_token"].encode()
    secrets["connector refresh token"] = tokens["refresh_token"].encode()

    logs = list(deployment.directory.glob("*.log"))
    assert logs
    printed_once = deployment.parts["controller"].log
    for path in [*logs, *files_of(deployment.state, deployment.directory / "office-1")]:
        content = path.read_bytes()
        for name, secret in secrets.items():
            if path == printed_once and name == "API token":
                assert content.count(secret) == 1  # printed by the first start, on purpose
                continue
            assert secret not in content, f"{name} is in {path}"
        if path in logs:
            assert not JWT.search(content), f"a signed token is in {path}"
            assert b"PRIVATE KEY" not in content
