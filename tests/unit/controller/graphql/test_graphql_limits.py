"""What one request may cost, and what a request that is not understood is told."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from klinket.controller.graphql import limits
from klinket.controller.graphql.filters import MAX_PATTERN_CHARS
from klinket.controller.graphql.http import GRAPHQL_PATH, MAX_BODY_BYTES
from tests.unit.controller.running import Running

# Most of what is here ends before the store is asked.
pytestmark = pytest.mark.sqlite_only


async def raw(controller: Running, content: bytes | str, **headers: str) -> Any:
    async with controller.http() as client:
        return await client.post(
            GRAPHQL_PATH, content=content, headers={"X-API-KEY": controller.tokens["read", "write", "provision"], **headers}
        )


def refusal(answer: dict[str, Any]) -> str:
    """Return the text of the single error of an answer without data."""
    assert set(answer) == {"errors"}
    (error,) = answer["errors"]
    return str(error["message"])


# ---- the request itself


async def test_a_body_of_the_limit_is_read_and_one_byte_more_is_not(controller: Running) -> None:
    body = json.dumps({"query": "{ resources { totalCount } }", "variables": {"unused": ""}})
    full = body.replace('""', '"' + "x" * (MAX_BODY_BYTES - len(body)) + '"')
    assert len(full) == MAX_BODY_BYTES
    assert (await raw(controller, full)).json() == {"data": {"resources": {"totalCount": 0}}}
    answer = await raw(controller, full + " ")
    assert answer.status_code == 413
    assert refusal(answer.json()) == "the request body may hold 262144 bytes"


async def test_a_large_body_without_a_token_is_not_even_read(controller: Running) -> None:
    answer = await raw(controller, b"x" * (MAX_BODY_BYTES + 1), **{"X-API-KEY": "none"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no query"),
        pytest.param(b'{"query": null}', id="null query"),
        pytest.param(b'{"query": 5}', id="query of another type"),
        pytest.param(b'{"query": "{ __typename }", "variables": []}', id="variables of another type"),
        pytest.param(b'{"query": "{ __typename }"', id="cut off"),
        pytest.param(b"[" * 100_000, id="deep JSON"),
    ],
)
async def test_a_body_that_is_not_understood_is_refused(controller: Running, content: bytes) -> None:
    answer = await raw(controller, content)
    assert answer.status_code == 400
    assert "must be JSON with a text `query`" in refusal(answer.json())


async def test_the_header_counts_in_any_case_and_the_query_string_not_at_all(controller: Running) -> None:
    async with controller.http() as client:
        answer = await client.post(
            GRAPHQL_PATH + "?operation=x&token=y",
            json={"query": "{ __typename }"},
            headers={"x-Api-kEY": controller.tokens["read",]},
        )
    assert answer.json() == {"data": {"__typename": "Query"}}


async def test_looking_at_the_url_is_answered_without_a_token(controller: Running) -> None:
    async with controller.http() as client:
        assert (await client.get(GRAPHQL_PATH)).status_code == 200
        assert (await client.head(GRAPHQL_PATH)).status_code == 200


async def test_variables_may_hold_names_that_the_operation_does_not_declare(controller: Running) -> None:
    assert await controller.query("{ resources { totalCount } }", first=5, anything=[1]) == {"resources": {"totalCount": 0}}


@pytest.mark.parametrize(
    ("name", "told"),
    [("b", None), ("c", "give operationName"), (None, "give operationName")],
    ids=["named", "unknown", "not named"],
)
async def test_one_of_several_operations_is_chosen_by_its_name(controller: Running, name: str | None, told: str | None) -> None:
    query = "query a { users { totalCount } } query b { groups { totalCount } }"
    answer = (await raw(controller, json.dumps({"query": query, "operationName": name}))).json()
    if told is None:
        assert answer == {"data": {"groups": {"totalCount": 0}}}
    else:
        assert told in refusal(answer)


async def test_a_field_that_does_not_exist_is_named_without_suggestions(controller: Running) -> None:
    told = refusal(await controller.ask("{ resource(id: 1) { nmae } }"))
    assert "nmae" in told
    assert "Did you mean" not in told


async def test_a_refused_document_is_refused_the_same_way_the_second_time(controller: Running) -> None:
    first = await controller.ask("{ nothing }")
    assert await controller.ask("{ nothing }") == first
    assert "nothing" in refusal(first)


# ---- the document


async def test_a_document_of_too_many_characters_or_tokens_is_refused(controller: Running) -> None:
    comment = "#" + "x" * limits.MAX_DOCUMENT_CHARS + "\n{ __typename }"
    assert "65536" in refusal(await controller.ask(comment))
    many = "{ " + "__typename " * limits.MAX_TOKENS + "}"
    assert "2000" in refusal(await controller.ask(many))


def chain(levels: int) -> str:
    """Return a query of exactly `levels` nested selections: `__type { ofType { ofType ... } }`."""
    return '{ __type(name: "Query") ' + "{ ofType " * (levels - 2) + "{ name }" + " }" * (levels - 2) + " }"


async def test_selections_nest_up_to_the_limit(controller: Running) -> None:
    assert "errors" not in await controller.ask(chain(limits.MAX_DEPTH))
    assert refusal(await controller.ask(chain(limits.MAX_DEPTH + 1))) == "the query is nested deeper than 15 levels"


async def test_nesting_by_fragments_counts_as_well(controller: Running) -> None:
    fragments = "".join(f"fragment f{n} on Query {{ ...f{n + 1} }} " for n in range(limits.MAX_DEPTH))
    told = refusal(await controller.ask(f"{{ ...f0 }} {fragments} fragment f{limits.MAX_DEPTH} on Query {{ __typename }}"))
    assert told == "the query is nested deeper than 15 levels"


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param("{{ {fields} }}", id="plain"),
        pytest.param("{{ ... {{ {fields} }} }}", id="inline fragment"),
        pytest.param("{{ ...f }} fragment f on Query {{ {fields} }}", id="fragment"),
        pytest.param("{{ ...f ...f }} fragment f on Query {{ ... on Query {{ {fields} }} }}", id="fragment in a fragment"),
    ],
)
async def test_root_fields_are_counted_wherever_they_stand(controller: Running, shape: str) -> None:
    def document(count: int) -> str:
        return shape.format(fields=" ".join(f"a{n}: __typename" for n in range(count)))

    allowed = limits.MAX_ROOT_FIELDS // max(1, shape.count("...f"))
    assert "errors" not in await controller.ask(document(allowed))
    assert "root fields in one operation, the limit is 20" in refusal(await controller.ask(document(allowed + 1)))


async def test_too_many_mutations_in_one_document_change_nothing(controller: Running) -> None:
    fields = " ".join(f'a{n}: remoteNetworkCreate(name: "n{n}") {{ ok }}' for n in range(limits.MAX_ROOT_FIELDS + 1))
    for document in (f"mutation {{ {fields} }}", f"mutation {{ ...f }} fragment f on Mutation {{ {fields} }}"):
        assert "the limit is 20" in refusal(await controller.ask(document))
    assert await controller.read(lambda tx: tx.remote_networks.find()) == []


PAGES = {
    "plain": "{ remoteNetworks { edges { node { resources { edges { node { access { edges { cursor } } } } } } } } }",
    "aliases": "{ remoteNetworks { e: edges { node { resources { e: edges { node { access { e: edges { cursor } } } } } } } } }",
    "inline fragments": "{ remoteNetworks { ... { edges { node { resources { ... { edges { node { "
    "access { ... { edges { cursor } } } } } } } } } } } }",
    "fragments": "{ remoteNetworks { ...n } } "
    "fragment n on RemoteNetworkConnection { edges { node { resources { ...r } } } } "
    "fragment r on ResourceConnection { edges { node { access { ...a } } } } "
    "fragment a on AccessConnection { edges { cursor } }",
    "edges twice": "{ remoteNetworks { edges { cursor } edges { node { "
    "resources { edges { node { access { edges { cursor } } } } } } } } }",
}


@pytest.mark.parametrize("shape", PAGES)
async def test_pages_within_pages_multiply_however_they_are_written(controller: Running, shape: str) -> None:
    told = refusal(await controller.ask(PAGES[shape]))
    assert told == "the query may ask for more than 200000 values: ask for smaller pages"


@pytest.mark.parametrize("shape", PAGES)
async def test_smaller_pages_cost_less(controller: Running, shape: str) -> None:
    small = PAGES[shape]
    for name in ("remoteNetworks", "resources", "access"):
        small = small.replace(f"{name} {{", f"{name}(first: 10) {{")
    assert "errors" not in await controller.ask(small)


@pytest.mark.parametrize("first", [100, 10_000, -5])
async def test_page_sizes_in_variables_count_as_what_is_served(controller: Running, first: int) -> None:
    query = (
        "query ($n: Int) { remoteNetworks(first: $n) { edges { node { resources(first: $n) { edges { node "
        "{ access(last: $n) { edges { cursor } } } } } } } } }"
    )
    answer = await controller.ask(query, {"n": first})
    if first < 0:
        assert "errors" not in answer
    else:
        assert "ask for smaller pages" in refusal(answer)


async def test_a_document_of_spreads_of_spreads_is_refused_in_no_time(controller: Running) -> None:
    """Each fragment spreads the next one eight times: 8**12 leaves."""
    spreads = "".join(f"fragment f{n} on Query {{ {f'...f{n + 1} ' * 8} }} " for n in range(12))
    begun = time.monotonic()
    refusal(await controller.ask(f"{{ ...f0 }} {spreads} fragment f12 on Query {{ __typename }}"))
    assert time.monotonic() - begun < 5


# ---- patterns in filters


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("(a+)+$", id="repeated repetition"),
        pytest.param("((a+))+$", id="behind one more group"),
        pytest.param("((a+)b?)+$", id="with something after it"),
        pytest.param("(?:(?:a|a))*$", id="repeated alternatives, behind one more group"),
        pytest.param("(a|aa)+$", id="repeated alternatives"),
        pytest.param("a?" * 25 + "a" * 25, id="many optional letters"),
        pytest.param(".*" * 20 + "x", id="many repetitions in a row"),
        pytest.param("(?x)((a+)) +$", id="space before the repetition"),
        pytest.param("(a*)*\\1b", id="reference back"),
        pytest.param("(?P<n>a+)(?P=n)(?P=n)$", id="reference back by name"),
        pytest.param("[(]((a+))+$", id="bracket in a class before it"),
        pytest.param("\\\\((a+))+$", id="escaped backslash before it"),
        pytest.param("([)]a+)+$", id="bracket in a class inside it"),
    ],
)
async def test_a_pattern_that_could_take_for_ever_is_refused(controller: Running, pattern: str) -> None:
    await controller.add_network("a" * 40 + "!")
    begun = time.monotonic()
    answer = await controller.ask(
        "query ($p: String) { remoteNetworks(filter: {name: {regexp: $p}}) { totalCount } }", {"p": pattern}
    )
    assert time.monotonic() - begun < 5
    assert answer["data"] is None
    assert answer["errors"][0]["message"].startswith("filter regexp: ")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("^(prod|test)-.*$", ["prod-1", "test-1"]),
        ("1$", ["prod-1", "test-1"]),
        (".*st.*", ["test-1"]),
        ("^[a-z]+-[0-9]{1,3}$", ["prod-1", "test-1"]),
        ("(?i)PROD", ["prod-1"]),
        (r"a\(b\)\*", ["a(b)*"]),
        ("[*+?]", ["a(b)*"]),
        ("^(?:prod|test)-(?P<number>[0-9]+)$", ["prod-1", "test-1"]),
        ("", ["prod-1", "test-1", "a(b)*"]),
        ("^$", []),
    ],
)
async def test_a_pattern_is_searched_for_anywhere_in_the_name(controller: Running, pattern: str, found: list[str]) -> None:
    for name in ("prod-1", "test-1", "a(b)*"):
        await controller.add_network(name)
    answer = await controller.query(
        "query ($p: String) { remoteNetworks(filter: {name: {regexp: $p}}) { edges { node { name } } } }", p=pattern
    )
    assert [edge["node"]["name"] for edge in answer["remoteNetworks"]["edges"]] == found


async def test_the_slowest_pattern_allowed_ends_soon_on_the_longest_name(controller: Running) -> None:
    await controller.add_network("a" * 255)
    begun = time.monotonic()
    assert await controller.query('{ remoteNetworks(filter: {name: {regexp: ".*?.*?.*?[bc]"}}) { totalCount } }') == {
        "remoteNetworks": {"totalCount": 0}
    }
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "x" * (MAX_PATTERN_CHARS + 1), "(?<=a+)b", "a{99999999999}"])
async def test_a_pattern_that_is_none_is_told(controller: Running, pattern: str) -> None:
    await controller.add_network("office")
    answer = await controller.ask(
        "query ($p: String) { remoteNetworks(filter: {name: {regexp: $p}}) { totalCount } }", {"p": pattern}
    )
    assert answer["errors"][0]["message"].startswith("filter regexp: ")
