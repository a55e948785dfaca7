"""What one request may cost, and what a request that is not understood is told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from graphql import get_introspection_query, get_operation_ast, parse
from hypothesis import given, settings
from hypothesis import strategies as st

from klinket.controller.graphql import deadline, limits, overlaps
from klinket.controller.graphql.changes import given_rows
from klinket.controller.graphql.documents import CACHED_DOCUMENTS, MAX_CACHED_BYTES, Documents
from klinket.controller.graphql.execute import API_PREPARES, API_READS
from klinket.controller.graphql.filters import MAX_PATTERN_CHARS, matches_text
from klinket.controller.graphql.lane import Lane
from klinket.controller.graphql.schema import load_schema
from klinket.controller.request import MAX_BODY_BYTES
from klinket.controller.store.engine import READERS
from klinket.wire.paths import GRAPHQL_PATH
from tests.unit.controller.running import Running

# Most of what is here ends before the store is asked.
pytestmark = pytest.mark.sqlite_only


async def raw(controller: Running, content: bytes | str, **headers: str) -> Any:
    async with controller.http() as client:
        return await client.post(
            GRAPHQL_PATH, content=content, headers={"X-API-KEY": controller.tokens["read", "write", "provision"], **headers}
        )


def refusal(answer: dict[str, Any], code: str = "document-invalid") -> str:
    """Return the text of the single error of an answer without data, which has this code."""
    assert set(answer) == {"errors"}
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == code
    return str(error["message"])


# ---- the request itself


async def test_a_body_of_the_limit_is_read_and_one_byte_more_is_not(controller: Running) -> None:
    body = json.dumps({"query": "{ resources { totalCount } }", "variables": {"unused": ""}})
    full = body.replace('""', '"' + "x" * (MAX_BODY_BYTES - len(body)) + '"')
    assert len(full) == MAX_BODY_BYTES
    assert (await raw(controller, full)).json() == {"data": {"resources": {"totalCount": 0}}}
    answer = await raw(controller, full + " ")
    assert answer.status_code == 413
    assert refusal(answer.json(), "body-too-large") == "the request body may hold 262144 bytes"


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
    assert "must be JSON with a text `query`" in refusal(answer.json(), "invalid-input")


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
    assert "65536" in refusal(await controller.ask(comment), "document-too-long")
    many = "{ " + "__typename " * limits.MAX_TOKENS + "}"
    assert "2000" in refusal(await controller.ask(many), "too-many-tokens")
    comments = "#\n" * limits.MAX_TOKENS + "{ __typename }"
    assert "2000" in refusal(await controller.ask(comments), "too-many-tokens")


def chain(levels: int) -> str:
    """Return a query of exactly `levels` nested selections: `__type { ofType { ofType ... } }`."""
    return '{ __type(name: "Query") ' + "{ ofType " * (levels - 2) + "{ name }" + " }" * (levels - 2) + " }"


async def test_selections_nest_up_to_the_limit(controller: Running) -> None:
    assert "errors" not in await controller.ask(chain(limits.MAX_DEPTH))
    assert refusal(await controller.ask(chain(limits.MAX_DEPTH + 1)), "too-deep") == "the query is nested deeper than 20 levels"


async def test_nesting_by_fragments_counts_as_well(controller: Running) -> None:
    fragments = "".join(f"fragment f{n} on Query {{ ...f{n + 1} }} " for n in range(limits.MAX_DEPTH))
    document = f"{{ ...f0 }} {fragments} fragment f{limits.MAX_DEPTH} on Query {{ __typename }}"
    told = refusal(await controller.ask(document), "too-deep")
    assert told == "the query is nested deeper than 20 levels"


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
    told = refusal(await controller.ask(document(allowed + 1)), "too-many-fields")
    assert "root fields in one operation, the limit is 20" in told


async def test_too_many_mutations_in_one_document_change_nothing(controller: Running) -> None:
    fields = " ".join(f'a{n}: remoteNetworkCreate(name: "n{n}") {{ ok }}' for n in range(limits.MAX_MUTATIONS + 1))
    for document in (f"mutation {{ {fields} }}", f"mutation {{ ...f }} fragment f on Mutation {{ {fields} }}"):
        assert "the limit is 10" in refusal(await controller.ask(document), "too-many-mutations")
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
    told = refusal(await controller.ask(PAGES[shape]), "too-costly")
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
        assert "ask for smaller pages" in refusal(answer, "too-costly")


async def test_a_document_of_spreads_of_spreads_is_refused_in_no_time(controller: Running) -> None:
    """Each fragment spreads the next one eight times: 8**12 leaves."""
    spreads = "".join(f"fragment f{n} on Query {{ {f'...f{n + 1} ' * 8} }} " for n in range(12))
    begun = time.monotonic()
    refusal(await controller.ask(f"{{ ...f0 }} {spreads} fragment f12 on Query {{ __typename }}"), "too-costly")
    assert time.monotonic() - begun < 5


def amplified(aliases: int) -> str:
    """Return a question for every type of every field of every type, so many times over at each level."""

    def all_of(field: str, body: str) -> str:
        return " ".join(f"a{number}: {field} {body}" for number in range(aliases))

    return (
        f"{{ __schema {{ {all_of('types', '{ ...A }')} }} }} fragment A on __Type {{ {all_of('fields', '{ ...B }')} }} "
        f"fragment B on __Field {{ {all_of('type', '{ ...C }')} }} fragment C on __Type {{ {all_of('fields', '{ name }')} }}"
    )


async def test_lists_of_introspection_multiply_as_pages_do(controller: Running) -> None:
    assert "errors" not in await controller.ask(amplified(1))
    begun = time.monotonic()
    assert "ask for smaller pages" in refusal(await controller.ask(amplified(3)), "too-costly")
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("extension", [False, True], ids=["contract", "extension"])
@pytest.mark.parametrize("full", [False, True], ids=["short", "everything"])
async def test_the_introspection_that_clients_send_is_answered(controller: Running, extension: bool, full: bool) -> None:
    asked = get_introspection_query(
        descriptions=full,
        specified_by_url=full,
        directive_is_repeatable=full,
        schema_description=full,
        input_value_deprecation=full,
    )
    answer = await controller.query(asked, extension=extension)
    assert len(answer["__schema"]["types"]) > 20


async def test_lists_that_are_no_pages_multiply_as_well(controller: Running) -> None:
    ports = " ".join(f"p{number}: ports {{ start end }}" for number in range(100))
    asked = f"{{ resources {{ edges {{ node {{ protocols {{ tcp {{ {ports} }} }} }} }} }} }}"
    assert "ask for smaller pages" in refusal(await controller.ask(asked), "too-costly")
    assert "errors" not in await controller.ask(asked.replace("resources {", "resources(first: 10) {"))


# ---- lists given as arguments

NUMBERS = "serialNumbersCreate(serialNumbers: $n) { ok }"


@pytest.mark.parametrize("count", [limits.MAX_LIST_ITEMS, limits.MAX_LIST_ITEMS + 1])
async def test_a_list_is_as_long_as_the_limit_and_no_longer(controller: Running, count: int) -> None:
    numbers = [f"n{number}" for number in range(count)]
    answer = await controller.ask(f"mutation ($n: [String!]!) {{ {NUMBERS} }}", {"n": numbers})
    if count == limits.MAX_LIST_ITEMS:
        assert answer == {"data": {"serialNumbersCreate": {"ok": True}}}
    else:
        assert refusal(answer, "list-too-long") == "1001 items in one list, the limit is 1000"
        assert await controller.read(lambda tx: tx.serial_numbers.find()) == []


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        pytest.param("{{ a(b: [{many}]) }}", {}, id="in the document"),
        pytest.param("query ($n: [String!]! = [{many}]) {{ a(b: $n) }}", {}, id="as a default"),
        pytest.param("query ($n: In) {{ a(b: $n) }}", {"n": {"c": [{"d": ["x"] * 501}]}}, id="inside an object"),
        pytest.param("query ($n: In) {{ a(b: {{c: [$n]}}) }}", {"n": ["x"] * 501}, id="inside a list in the document"),
    ],
)
def test_lists_count_wherever_they_are_given(document: str, variables: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_LIST_ITEMS", 500)
    parsed = parse(document.format(many='"x" ' * 501))
    operation = get_operation_ast(parsed)
    assert operation is not None
    with pytest.raises(limits.ListTooLong, match="the limit is 500"):
        limits.check(load_schema(), parsed, operation, variables)


async def test_the_lists_of_all_mutations_of_a_document_count_together(controller: Running) -> None:
    fields = " ".join(f"a{number}: {NUMBERS}" for number in range(5))
    variables = {"n": [f"n{number}" for number in range(limits.MAX_WRITE_ITEMS // 5 + 1)]}
    told = refusal(await controller.ask(f"mutation ($n: [String!]!) {{ {fields} }}", variables), "list-too-long")
    assert told == "4005 items in the lists of one mutation document, the limit is 4000"
    assert await controller.read(lambda tx: tx.serial_numbers.find()) == []


def test_lists_in_a_query_cost_as_often_as_they_are_given() -> None:
    field = "resources(filter: {name: {in: $n}}) { totalCount }"
    document = f"query ($n: [String!]) {{ {' '.join(f'a{number}: {field}' for number in range(20))} }}"
    parsed = parse(document)
    operation = get_operation_ast(parsed)
    assert operation is not None
    few = limits.check(load_schema(), parsed, operation, {"n": ["x"]}).values
    many = limits.check(load_schema(), parsed, operation, {"n": ["x"] * 100}).values
    assert many - few == 99 * 20


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    )
)
def test_any_variable_is_counted_or_refused(value: Any) -> None:
    parsed = parse("query ($n: Int) { resources(first: $n) { totalCount } }")
    operation = get_operation_ast(parsed)
    assert operation is not None
    assert limits.check(load_schema(), parsed, operation, {"n": value}).items == items(value)


def items(value: Any) -> int:
    if isinstance(value, dict):
        return sum(items(one) for one in value.values())
    return len(value) + sum(items(one) for one in value) if isinstance(value, list) else 0


# ---- time


async def test_an_operation_that_executes_for_too_long_is_ended(controller: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await controller.add_network("office")
    monkeypatch.setattr(deadline, "MAX_EXECUTE_SECONDS", 0.0)
    for document in ("{ remoteNetworks { totalCount } }", 'mutation { remoteNetworkCreate(name: "late") { ok } }'):
        answer = await raw(controller, json.dumps({"query": document}))
        assert answer.status_code == 503
        assert "takes longer than" in refusal(answer.json(), "took-too-long")
    assert [row.name for row in await controller.read(lambda tx: tx.remote_networks.find())] == ["office"]


async def test_questions_to_the_admin_api_leave_readers_to_logins(controller: Running) -> None:
    """As many queries as there are reader threads, none of which ends: what logins need is read all the same."""
    let_go = threading.Event()

    def stuck(_: Any) -> None:
        let_go.wait(30)

    lane = Lane(API_READS)
    queries = [asyncio.create_task(lane.run(lambda: controller.store.read(stuck))) for _ in range(READERS)]
    try:
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
            assert await controller.read(lambda tx: tx.remote_networks.find()) == []
            queries[0].cancel()  # its thread goes on, so nobody takes its place
            await asyncio.gather(queries[0], return_exceptions=True)
            assert await controller.read(lambda tx: tx.remote_networks.find()) == []
        assert API_READS < READERS
    finally:
        let_go.set()
        await asyncio.gather(*queries, return_exceptions=True)


async def test_a_query_whose_turn_comes_too_late_is_not_begun(controller: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "MAX_SECONDS", 0.0)
    answer = await raw(controller, json.dumps({"query": "{ remoteNetworks { totalCount } }"}))
    assert answer.status_code == 503
    assert "takes longer than" in refusal(answer.json(), "took-too-long")
    monkeypatch.undo()
    assert "errors" not in await controller.ask("{ remoteNetworks { totalCount } }")


async def test_of_a_mutation_document_that_takes_too_long_nothing_stays(
    controller: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = " ".join(f"a{number}: {NUMBERS}" for number in range(4))
    document = f'mutation ($n: [String!]!) {{ groupCreate(name: "ops") {{ ok }} {fields} }}'
    variables = {"n": [f"n{number}" for number in range(limits.MAX_LIST_ITEMS)]}
    events = len(await controller.audit())
    monkeypatch.setattr(deadline, "MAX_EXECUTE_SECONDS", 0.02)
    answer = await raw(controller, json.dumps({"query": document, "variables": variables}))
    assert answer.status_code == 503
    refusal(answer.json(), "took-too-long")
    assert await controller.read(lambda tx: (tx.groups.find(name="ops"), tx.serial_numbers.find())) == ([], [])
    assert len(await controller.audit()) == events
    monkeypatch.undo()
    assert (await controller.ask(document, variables))["data"]["groupCreate"] == {"ok": True}


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda: matches_text("office", {"eq": "office"}), id="the next name of a filter"),
        pytest.param(lambda: given_rows(["1"], lambda id: id), id="the next id of a list"),
    ],
)
def test_long_work_stops_at_its_next_step(work: Callable[[], object]) -> None:
    work()
    with pytest.raises(deadline.TookTooLong), deadline.until(time.monotonic() - 1):
        work()


def test_only_what_is_done_inside_is_timed() -> None:
    deadline.check()
    with pytest.raises(deadline.TookTooLong), deadline.until(time.monotonic() - 1):
        deadline.check()
    deadline.check()


# ---- fields at one place

_NODES = "{{ remoteNetworks {{ edges {{ node {{ {0} }} }} }} }}"
#: How one field comes to stand `n` times at one place.
REPEATED: dict[str, Callable[[int], str]] = {
    "side by side": lambda n: _NODES.format("name " * n),
    "under an alias": lambda n: _NODES.format("name: id " * n),
    "inline fragments": lambda n: _NODES.format("... { name } " * n),
    "fragments": lambda n: (
        _NODES.format(" ".join(f"...f{one}" for one in range(n)))
        + " ".join(f"fragment f{one} on RemoteNetwork {{ name }}" for one in range(n))
    ),
    "in parents that are merged": lambda n: "{ remoteNetworks { " + "edges { node { name } } " * n + "} }",
    "in parents of parents": lambda n: _NODES.format("name " * (n - 10))[:-2]
    + "remoteNetworks { edges { node { " + "name " * 10 + "} } } }",
    "another operation": lambda n: "query one { resources { totalCount } } query two " + _NODES.format("name " * n),
}  # fmt: skip


@pytest.mark.parametrize("shape", REPEATED)
async def test_a_field_may_stand_so_often_at_one_place(controller: Running, shape: str) -> None:
    async def ask(times: int) -> dict[str, Any]:
        body = {"query": REPEATED[shape](times), "operationName": "one" if shape == "another operation" else None}
        return dict((await raw(controller, json.dumps(body))).json())

    assert "errors" not in await ask(overlaps.MAX_SAME_NAME)
    refusal(await ask(overlaps.MAX_SAME_NAME + 1), "too-many-fields")


async def test_a_fragment_nobody_spreads_is_counted_as_well(controller: Running) -> None:
    unused = "fragment f on Query { remoteNetworks { " + "edges { node { id } } " * 200 + "} }"
    refusal(await controller.ask("{ __typename } " + unused), "too-many-fields")


async def test_fragments_that_multiply_are_counted_and_not_followed(controller: Running) -> None:
    """Each fragment stands at twice as many places as the one before: 2**16 in all."""
    spreads = "".join(
        f"fragment f{n} on Resource {{ a: remoteNetwork {{ ...f{n + 1} }} b: remoteNetwork {{ ...f{n + 1} }} }} "
        for n in range(16)
    )
    document = f"{{ resource(id: 1) {{ ...f0 }} }} {spreads} fragment f16 on Resource {{ id }}"
    assert "10000 fields" in refusal(await controller.ask(document), "too-many-fields")


@given(st.integers(1, 40), st.integers(1, 6), st.booleans())
@settings(max_examples=30, deadline=None)
def test_fragments_in_circles_end(spread: int, fragments: int, nested: bool) -> None:
    body = "a { {0} }" if nested else "{0}"
    text = "{ ...f0 } " + " ".join(
        f"fragment f{n} on Query {{ {body.replace('{0}', ' '.join(f'...f{(n + k) % fragments}' for k in range(spread)))} }}"
        for n in range(fragments)
    )
    with contextlib.suppress(limits.DocumentInvalid):
        overlaps.check(parse(text))


async def test_documents_are_prepared_apart_from_the_event_loop_and_so_many_at_a_time(
    controller: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, running = threading.Event(), []
    check = overlaps.check

    def slow(document: Any) -> None:
        running.append(threading.current_thread())
        assert go.wait(10)
        check(document)

    monkeypatch.setattr(overlaps, "check", slow)
    asked = [asyncio.create_task(controller.ask(f"{{ a{number}: __typename }}")) for number in range(API_PREPARES + 2)]
    try:
        async with asyncio.timeout(10):
            while len(running) < API_PREPARES:
                await asyncio.sleep(0.01)  # which the event loop has time for
        assert threading.main_thread() not in running
        assert len(running) == API_PREPARES
    finally:
        go.set()
    for number, answer in enumerate(await asyncio.gather(*asked)):
        assert answer == {"data": {f"a{number}": "Query"}}


# ---- documents kept


def test_the_documents_kept_are_bounded_by_number_and_by_memory() -> None:
    documents = Documents(load_schema())
    small = [f"{{ a{number}: __typename }}" for number in range(CACHED_DOCUMENTS + 10)]
    for text in small:
        documents.get(text)
    assert documents.kept[0] == CACHED_DOCUMENTS
    assert documents.get(small[-1])[0] is documents.get(small[-1])[0]
    many = MAX_CACHED_BYTES // 1_000_000
    for number in range(many):
        documents.get(f"{{ a{number}: __schema {{ {' '.join(f'b{one}: __typename' for one in range(330))} }} }}")
    assert documents.kept[1] <= MAX_CACHED_BYTES
    assert documents.kept[0] < CACHED_DOCUMENTS


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{__schema{" + " ".join(f"a{n}:__typename" for n in range(600)) + "}}", id="fields"),
        pytest.param("{__schema{" + " ".join(f"a{n}:__typename @include(if: true)" for n in range(190)) + "}}", id="directives"),
        pytest.param("{ __typename }" + "\n#" * 1_900, id="comments"),
        pytest.param("{ __typename } #" + "x" * 60_000, id="one long comment"),
        pytest.param("{__schema{" + " ".join(f"no{n}" for n in range(1_900)) + "}}", id="errors"),
    ],
)
def test_a_document_takes_no_more_memory_than_it_counts_as(text: str) -> None:
    documents = Documents(load_schema())
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        documents.get(text)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0 < taken < documents.kept[1]


# ---- patterns in filters


async def searched(controller: Running, pattern: str) -> dict[str, Any]:
    return await controller.ask(
        "query ($p: String) { remoteNetworks(filter: {name: {regexp: $p}}) { totalCount } }", {"p": pattern}
    )


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("(a+)+$", id="repeated repetition"),
        pytest.param("((a+)b?)+$", id="with something after it"),
        pytest.param("(?:(?:a|a))*$x", id="repeated alternatives"),
        pytest.param("(|)" * 27 + "xx", id="many empty alternatives"),
        pytest.param("a?" * 25 + "a" * 25 + "$", id="many optional letters"),
        pytest.param(".*" * 20 + "x", id="many repetitions in a row"),
        pytest.param("(?:.{0,10}){90}x", id="many states"),
    ],
)
async def test_the_time_of_a_search_does_not_explode(controller: Running, pattern: str) -> None:
    for number in range(20):
        await controller.add_network("a" * 250 + f"!{number}")
    begun = time.monotonic()
    assert await searched(controller, pattern) == {"data": {"remoteNetworks": {"totalCount": 0}}}
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("pattern", ["(?<=a+)b", "(?=a)b", "(?!a)b", "(a*)*\\1b", "(?P<n>a+)(?P=n)", "(?x)a b", "(?>a)"])
async def test_what_takes_more_than_linear_time_is_not_known(controller: Running, pattern: str) -> None:
    await controller.add_network("aab")
    told = (await searched(controller, pattern))["errors"][0]["message"]
    assert told.startswith("filter regexp: ")
    assert "look-around and references to groups are not known" in told


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


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "x" * (MAX_PATTERN_CHARS + 1), "a{2000}", "((x{100}){100}){100}"])
async def test_a_pattern_that_is_none_is_told(controller: Running, pattern: str) -> None:
    await controller.add_network("office")
    answer = await controller.ask(
        "query ($p: String) { remoteNetworks(filter: {name: {regexp: $p}}) { totalCount } }", {"p": pattern}
    )
    assert answer["errors"][0]["message"].startswith("filter regexp: ")
