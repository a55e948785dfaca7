"""Text of others is shown without effect: no escape sequence, no second line, no reversed reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.printable import escaped, printable

HOSTILE = ("\x1b]0;owned\x07", "a\nb", "a\r\nERROR forged", "\u202egnp.exe", "\x9b31m", "\ud800", "\x00")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_moves_a_cursor_or_breaks_a_line_is_written_out(text: str) -> None:
    assert escaped(text).isprintable()
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


@given(st.text())
def test_whatever_it_is_one_line_comes_out(text: str) -> None:
    assert escaped(text).isprintable()
    assert printable(text).isprintable()


@pytest.mark.parametrize("text", ["plain", "Zürich 東京", "it's \\n", ""])
def test_what_can_be_printed_stays_as_it_is(text: str) -> None:
    assert escaped(text) == printable(text) == text
