"""Versions that must agree with each other."""

from __future__ import annotations

import tomllib
from pathlib import Path

from klinket.domain.connector import MIN_VERSION_FOR_SERVICES, ConnectorVersion, check_services_allowed
from klinket.wire import version

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_the_product_version_is_the_one_that_is_packaged() -> None:
    assert tomllib.loads(PYPROJECT.read_text())["project"]["version"] == version.PRODUCT_VERSION


def test_our_connector_passes_every_gate_admins_see() -> None:
    ours = ConnectorVersion.parse(version.CONNECTOR_VERSION)
    assert ours >= ConnectorVersion(1, 80, 0) > MIN_VERSION_FOR_SERVICES
    assert version.CONNECTOR_VERSION.endswith(version.PRODUCT_VERSION)
    check_services_allowed([("ours", version.CONNECTOR_VERSION)])
