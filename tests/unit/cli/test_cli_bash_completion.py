"""What tab completion in bash puts behind what was typed: no name of it is run, whatever quotes are open or closed there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from klinket.cli.bash_completion import QuotedBashComplete, _begun, _quoted
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


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)


def read_by_bash(lines: list[str]) -> list[str]:
    """Return the arguments that bash makes of texts."""
    script = "printf '%s\\0' " + " ".join(lines)
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split("\0")[:-1]


@given(st.lists(NAMES, min_size=1, max_size=20))
def test_bash_reads_a_quoted_word_as_the_name(names: list[str]) -> None:
    names = [*names, "a!b", "x;$(touch made)`touch made` *", "it's", 'a "b"', "\\", "~"]
    for quote in ("", "'", '"'):
        assert read_by_bash([quote + _quoted(name, quote + "typed") + quote for name in names]) == names


@pytest.mark.parametrize(
    ("typed", "told"), [("Bu", "plain,Build\\\\ cache"), ('"Bu', "plain,Build cache"), ("'Bu", "plain,Build cache")]
)
def test_a_line_is_quoted_for_what_was_typed_and_for_the_script_that_reads_it(
    monkeypatch: pytest.MonkeyPatch, typed: str, told: str
) -> None:
    complete = QuotedBashComplete(klinket, {}, "klinket", "_KLINKET_COMPLETE")
    monkeypatch.setenv("COMP_WORDS", f"klinket\nshow\n{typed}")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert complete.format_completion(CompletionItem("Build cache")) == told
    assert complete.format_completion(CompletionItem("a b", type="file")) == "file,a b", "bash quotes names of files itself"


@pytest.mark.parametrize(("words", "place"), [("", ""), ("klinket", "7"), ("klinket", "-1"), ("klinket", "x")])
def test_a_place_that_no_word_has_is_one_without_quotes(monkeypatch: pytest.MonkeyPatch, words: str, place: str) -> None:
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", place)
    assert _begun() in ("", "klinket")
