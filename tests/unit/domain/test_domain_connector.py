"""Versions of connectors, and the gate for services at 1.0.30 (facts §5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.connector import ConnectorVersion, check_services_allowed
from klinket.domain.errors import Conflict, ConnectorTooOld, InvalidInput
from tests.unit.domain.conftest import MODERATE

NUMBER = st.integers(0, 999_999)
VERSIONS = st.tuples(NUMBER, NUMBER, NUMBER)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1.0.30", (1, 0, 30)),
        ("v1.80.0", (1, 80, 0)),
        (" 1.2.3\n", (1, 2, 3)),
        ("1.80.0+klinket.0.1.0", (1, 80, 0)),
        ("1.0.30-rc1", (1, 0, 30)),
        ("1.0.30.7", (1, 0, 30)),
        ("01.02.03", (1, 2, 3)),
    ],
)
def test_a_version_is_understood(text: str, numbers: tuple[int, int, int]) -> None:
    assert ConnectorVersion.parse(text) == ConnectorVersion(*numbers)


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.0", "a.b.c", "1.0.x", "1.0.30rc1", "-1.0.0", "1..0", "1.0.1234567", "１.0.0", "1.0.0+" + "x" * 61, "1.0.0 \n-x"],
)
def test_other_versions_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ConnectorVersion.parse(text)
    assert refused.value.field == "version"


@MODERATE
@given(VERSIONS, VERSIONS)
def test_versions_are_ordered_as_numbers_and_written_as_read(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    first, second = ConnectorVersion(*one), ConnectorVersion(*other)
    assert (first < second) is (one < other)
    assert ConnectorVersion.parse(str(first)) == first


@MODERATE
@given(st.text(st.characters(codec=None), max_size=30) | st.text("0123456789.v-+ \n", max_size=20))
def test_any_text_is_a_version_or_refused(text: str) -> None:
    try:
        version = ConnectorVersion.parse(text)
    except InvalidInput:
        return
    assert ConnectorVersion.parse(str(version)) == version


@pytest.mark.parametrize("reported", [None, "1.0.30", "1.0.31", "1.1.0", "2.0.0", "1.80.0+klinket.0.1.0", "v1.0.30"])
def test_new_and_silent_connectors_are_no_obstacle(reported: str | None) -> None:
    check_services_allowed([("one", "1.0.30"), ("two", reported)])
    with pytest.raises(ConnectorTooOld) as refused:
        check_services_allowed([("two", reported), ("three", "0.9.99")])
    assert "two" not in refused.value.message


@pytest.mark.parametrize("reported", ["1.0.29", "1.0.9", "0.99.99", "1.0.3", "", "nonsense", "x" * 500])
def test_an_old_connector_is_named_and_the_admin_told_to_upgrade(reported: str) -> None:
    with pytest.raises(ConnectorTooOld) as refused:
        check_services_allowed([("good", "1.80.0"), ("office-1", reported), ("silent", None)])
    assert isinstance(refused.value, Conflict)
    assert f"office-1 ({reported[:40]})" in refused.value.message
    assert "good" not in refused.value.message
    assert "silent" not in refused.value.message
    assert "1.0.30" in refused.value.message
    assert "upgrade" in refused.value.hint
    assert len(refused.value.message) < 200


def test_every_old_connector_is_named() -> None:
    with pytest.raises(ConnectorTooOld) as refused:
        check_services_allowed([("one", "1.0.1"), ("two", "0.1.0")])
    assert "one (1.0.1), two (0.1.0)" in refused.value.message


def test_no_connector_is_no_obstacle_and_the_first_old_one_is() -> None:
    check_services_allowed([])
    with pytest.raises(ConnectorTooOld):
        check_services_allowed([("one", "1.0.29")])
