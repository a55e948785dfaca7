"""Names of networks, connectors, resources, accounts and keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import InvalidInput
from klinket.domain.names import parse_name
from tests.unit.domain.conftest import MODERATE


@pytest.mark.parametrize(
    ("text", "name"), [(" ci \t", "ci"), ("Größe 5 / δ", "Größe 5 / δ"), ("x" * 255, "x" * 255), ("ключ", "ключ")]
)
def test_a_name_keeps_its_characters_and_loses_outer_spaces(text: str, name: str) -> None:
    assert parse_name(text) == name


@pytest.mark.parametrize(
    "text", ["", "  ", "\n", "x" * 256, "a\nb", "a\x00b", "a\x1b[31mb", "a\u202eb", "a\u200bb", "a\u2028b", "\ud800"]
)
def test_other_names_are_refused_by_field(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_name(text, "label")
    assert refused.value.field == "label"
    assert refused.value.message.startswith("label ")


@MODERATE
@given(st.text(st.characters(codec=None), max_size=300))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        name = parse_name(text)
    except InvalidInput:
        return
    assert name == parse_name(name) == name.strip()
    assert 1 <= len(name) <= 255
    assert name.isprintable()
