"""The token of a proxy: from a file or the environment, and nothing that could be guessed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from klinket.client import proxy_token
from klinket.domain.errors import InvalidInput

TOKEN = "0123456789abcdef0123"


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(proxy_token.VARIABLE, raising=False)


def test_a_file_comes_before_the_variable_and_its_last_line_break_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.setenv(proxy_token.VARIABLE, "another-token-altogether")
    assert proxy_token.read(str(tmp_path / "token")) == TOKEN
    assert proxy_token.VARIABLE not in os.environ


def test_the_variable_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(proxy_token.VARIABLE, TOKEN)
    assert proxy_token.read(None) == TOKEN
    assert proxy_token.VARIABLE not in os.environ
    assert proxy_token.read(None) is None


@pytest.mark.parametrize("text", ["", "short", "0123456789abcde", "with spaces in the middle", "x" * 256, "ümlaut-ümlaut-ümlaut"])
def test_what_is_no_good_token_is_refused_without_showing_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(proxy_token.VARIABLE, text)
    with pytest.raises(InvalidInput) as caught:
        proxy_token.read(None)
    assert not text or text not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read") as caught:
        proxy_token.read(str(tmp_path / "none"))
    assert caught.value.field == "--proxy-token-file"
