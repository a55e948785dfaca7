"""What tab completion in bash puts behind what was typed: no name of it is run, whatever quotes are open or closed there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from klinket.cli.bash_completion import _quoted
from klinket.cli.main import klinket

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


def test_a_name_that_looks_like_a_pattern_stands_for_no_file(tmp_path: Path) -> None:
    script = CliRunner().invoke(klinket, ["completion", "bash"]).output
    (tmp_path / "asked").write_text(f"#!/bin/sh\ncat <<'END'\nplain,{_quoted('*.corp', '').replace(chr(92), 2 * chr(92))}\nEND\n")
    (tmp_path / "asked").chmod(0o700)
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "plain,\\;touch made;.corp").touch()
    asking = (
        f'{script}\nCOMP_WORDS=(klinket x) COMP_CWORD=1\n_klinket_completion {tmp_path}/asked\nprintf %s "$COMPREPLY"; echo *'
    )
    done = subprocess.run(["bash", "-c", asking], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "\\*.corpplain,\\;touch made;.corp\n"  # the shell's own patterns go on meaning files
