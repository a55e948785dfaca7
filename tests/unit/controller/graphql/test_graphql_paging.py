"""Cursor connections against plain slices of a list, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.controller.graphql.paging import DEFAULT_PAGE_NODES, MAX_PAGE_NODES, OFFSETS, Cursors, connection

#: Lists around the size of a page, and small ones, where the edges are.
lists = st.integers(0, 2 * MAX_PAGE_NODES + 50).map(range)
sizes = st.one_of(st.none(), st.integers(-3, 8), st.integers(MAX_PAGE_NODES - 2, 10 * MAX_PAGE_NODES))
places = st.one_of(st.none(), st.integers(0, 12), st.integers(0, 3 * MAX_PAGE_NODES))


def nodes_of(page: dict[str, Any]) -> list[int]:
    return [edge["node"] for edge in page["edges"]]


def named(place: int | None) -> str | None:
    return None if place is None else OFFSETS.of(place)


def expected(nodes: range, after: int | None, before: int | None, first: int | None, last: int | None) -> list[int]:
    """Return the nodes of a page by the rules of cursor connections: narrow by cursors, then take `first`, then `last`."""
    left = [node for node in nodes if (after is None or node > after) and (before is None or node < before)]
    if first is None and last is None:
        first = DEFAULT_PAGE_NODES
    if first is not None:
        left = left[: max(0, min(first, MAX_PAGE_NODES))]
    if last is not None:
        count = max(0, min(last, MAX_PAGE_NODES))
        left = left[-count:] if count else []
    return left


@given(lists, places, places, sizes, sizes)
def test_a_page_is_a_slice_of_its_list(
    nodes: range, after: int | None, before: int | None, first: int | None, last: int | None
) -> None:
    page = connection(nodes, {"after": named(after), "before": named(before), "first": first, "last": last})
    shown = expected(nodes, after, before, first, last)
    assert nodes_of(page) == shown
    assert page["totalCount"] == len(nodes)
    assert [OFFSETS.number(edge["cursor"]) for edge in page["edges"]] == shown
    information = page["pageInfo"]
    if shown:
        assert (information["startCursor"], information["endCursor"]) == (named(shown[0]), named(shown[-1]))
        assert information["hasNextPage"] == (shown[-1] < len(nodes) - 1)
        assert information["hasPreviousPage"] == (shown[0] > 0)
    else:
        assert (information["startCursor"], information["endCursor"]) == (None, None)


@given(lists, st.integers(1, 2 * MAX_PAGE_NODES))
def test_pages_forward_give_every_node_once(nodes: range, size: int) -> None:
    seen: list[int] = []
    after, more = None, True
    while more:
        page = connection(nodes, {"first": size, "after": after})
        seen += nodes_of(page)
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        assert len(seen) <= len(nodes)
        assert page["edges"] or not more
    assert seen == list(nodes)


@given(lists, st.integers(1, 2 * MAX_PAGE_NODES))
def test_pages_backward_give_every_node_once(nodes: range, size: int) -> None:
    seen: list[int] = []
    before, more = None, True
    while more:
        page = connection(nodes, {"last": size, "before": before})
        seen = nodes_of(page) + seen
        before, more = page["pageInfo"]["startCursor"], page["pageInfo"]["hasPreviousPage"]
        assert len(seen) <= len(nodes)
        assert page["edges"] or not more
    assert seen == list(nodes)


@given(st.text(max_size=120))
def test_any_text_is_a_cursor_or_none(text: str) -> None:
    number = OFFSETS.number(text)
    assert number is None or number >= 0


@given(st.integers(0, 10**12 - 1))
def test_a_cursor_names_its_number_and_only_in_its_own_kind_of_list(number: int) -> None:
    assert OFFSETS.number(OFFSETS.of(number)) == number
    assert Cursors("before", 18).number(OFFSETS.of(number)) is None


@pytest.mark.parametrize("text", [None, "", "0", "no cursor", "YXJyYXljb25uZWN0aW9uOi0x", "YXJyYXljb25uZWN0aW9uOg==", "é"])
def test_what_is_no_cursor_counts_as_the_beginning(text: str | None) -> None:
    assert OFFSETS.number(text) is None
    assert nodes_of(connection(range(5), {"after": text, "first": 2})) == [0, 1]
