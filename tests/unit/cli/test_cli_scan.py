"""`klinket scan`: what lies where it should not is named, with its place, never printed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from klinket.cli.scan import scan
from klinket.domain import token_text

TOKEN = token_text.compose(token_text.API_TOKEN, bytes(range(30)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "clean.txt").write_text("nothing here\n")
    (tmp_path / "deep" / "ci.env").write_text(f"A=1\nKLINKET_API_TOKEN={TOKEN}\n")
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "ci.env")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def test_a_finding_ends_with_1_and_says_where(folder: Path) -> None:
    result = CliRunner().invoke(scan, [str(folder)])
    assert result.exit_code == 1
    assert f"{folder}/deep/ci.env:2: API token kl_api_" in result.stdout
    assert result.stdout.count("API token") == 1, "links are not followed: their file is found itself"
    assert TOKEN not in result.output


def test_a_clean_file_ends_with_0(folder: Path) -> None:
    result = CliRunner().invoke(scan, [str(folder / "clean.txt")])
    assert result.exit_code == 0
    assert result.stdout == ""


def test_scripts_get_json(folder: Path) -> None:
    result = CliRunner().invoke(scan, ["--json", str(folder / "deep")])
    assert [(row["line"], row["kind"]) for row in json.loads(result.stdout)] == [(2, "API token")]


def test_standard_input_is_searched() -> None:
    result = CliRunner().invoke(scan, ["-"], input=f"+{TOKEN}\n")
    assert result.exit_code == 1
    assert result.stdout.startswith("-:1: API token")


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(scan, [str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "does not exist" in result.output
