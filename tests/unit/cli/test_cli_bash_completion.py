"""What tab completion in bash puts behind what was typed: no name of it is run, whatever quotes are open or closed there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from klinket.cli.bash_completion import _quoted

NAME = "x;$(touch made)`touch made`'\";touch made #&& touch made"


@pytest.mark.parametrize("typed", ["", "x", "'x'", '"x"', "'x'y", '"x"y', "x'y'", "'it'\\''s'", '"x\\"y"'])
def test_a_name_behind_closed_quotes_is_no_command(typed: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"printf %s {typed}{_quoted(NAME, typed)}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith(NAME)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("typed", "end"), [("'x", "'"), ('"x', '"'), ("x'y", "'"), ('x"y', '"'), ('"x\\"y', '"')])
def test_a_name_behind_an_open_quote_is_no_command(typed: str, end: str, tmp_path: Path) -> None:
    for closing in (end, ""):
        subprocess.run(["bash", "-c", f"printf %s {typed}{_quoted(NAME, typed)}{closing}"], cwd=tmp_path, capture_output=True)
        assert not (tmp_path / "made").exists()
