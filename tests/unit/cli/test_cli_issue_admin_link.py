"""`klinket issue admin-link`: a way in for whoever owns the controller's machine, on a real state folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from klinket.cli import oidc, served
from klinket.cli.main import klinket
from klinket.controller.store.engine import open_store
from klinket.domain.errors import InvalidInput


def issue(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(klinket, ["issue", "admin-link", *arguments])
    return result.exit_code, result.output.strip()


def test_a_link_has_the_address_the_controller_was_started_with(tmp_path: Path) -> None:
    open_store(tmp_path / "klinket.db", lambda: 0.0).close()
    code, bare = issue("ada@example.com", "--state", str(tmp_path))
    assert code == 0
    assert re.fullmatch(r"kl_link_\w{47}", bare)
    served.remember(tmp_path, "acme", "https://k.example:8443")
    code, link = issue("ada@example.com", "--state", str(tmp_path))
    assert code == 0
    assert re.fullmatch(r"https://k\.example:8443/console/sign-in/link#kl_link_\w{47}", link)


def test_an_address_that_is_none_makes_no_admin(tmp_path: Path) -> None:
    open_store(tmp_path / "klinket.db", lambda: 0.0).close()
    result = CliRunner().invoke(klinket, ["issue", "admin-link", "ada", "--state", str(tmp_path)])
    assert result.exit_code != 0
    assert "kl_link_" not in result.output


def test_options_of_a_provider_without_a_provider_are_a_mistake() -> None:
    given = oidc.Given(None, "klinket", None, None, (), "groups", (), None, "single sign-on")
    with pytest.raises(InvalidInput, match="no --oidc-issuer"):
        given.settings()
