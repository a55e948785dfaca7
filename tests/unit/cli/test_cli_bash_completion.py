"""Words that tab completion puts into the command line of bash are the names they stand for, in whichever quotes."""

from __future__ import annotations

import subprocess

import pytest
from click.shell_completion import CompletionItem
from hypothesis import given
from hypothesis import strategies as st

from klinket.cli import bash_completion
from klinket.cli.bash_completion import QuotedBashComplete
from klinket.cli.main import klinket

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
        assert read_by_bash([quote + bash_completion._quoted(name, quote + "typed") + quote for name in names]) == names


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
    assert bash_completion._begun() in ("", "klinket")
