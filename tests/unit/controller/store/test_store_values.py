"""What rows can hold and how they are found: the same on both databases, in klinket's own words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import JSON, BigInteger, Column, Integer, String

from klinket.controller.app.ports import Transaction
from klinket.controller.database import PostgresAddress
from klinket.controller.store import values
from klinket.controller.store.engine import SqlStore, open_store
from klinket.controller.store.repository import MANY
from klinket.domain.errors import Conflict, InvalidInput

SESSION = {
    "service_account_id": 1, "service_key_id": 1, "jkt": "j", "hostname": "h", "client_version": "1", "address": "192.0.2.1",
}  # fmt: skip


@pytest.fixture
def store(database: Path | PostgresAddress) -> Iterator[SqlStore]:
    store = open_store(database, time.time)
    yield store
    store.close()


def network(tx: Transaction, name: str, **more: Any) -> Any:
    return tx.remote_networks.add(**{"name": name, "location": "OTHER", "network_type": "REGULAR", "is_active": True, **more})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\x00b", "name must not hold NUL characters"),
        ("a\ud800", "name holds half a character"),
        ("x" * 256, "name has 256 characters, the limit is 255"),
    ],
)
async def test_a_text_that_no_row_can_hold_is_refused_by_name_and_found_nowhere(store: SqlStore, text: str, told: str) -> None:
    def try_in_the_middle(tx: Transaction) -> int:
        row = network(tx, "office")
        for wrong in (lambda: network(tx, text), lambda: tx.remote_networks.change(row.id, name=text)):
            with pytest.raises(InvalidInput, match=told) as refused:
                wrong()
            assert refused.value.field == "name"
        assert tx.remote_networks.find(name=text) == []
        assert tx.sessions.get(text) is None
        assert tx.remote_networks.remove(name=text) == 0
        return row.id

    # The transaction goes on after each of them.
    row_id = await store.write(try_in_the_middle)
    assert await store.read(lambda tx: [row.id for row in tx.remote_networks.find(name=["office", text])]) == [row_id]


@pytest.mark.parametrize("number", [1 << 31, -(1 << 31) - 1, 1 << 62, 1 << 63, 1 << 64, -(1 << 70), 1 << 200])
async def test_a_number_beyond_a_column_is_found_nowhere_and_refused_by_name(store: SqlStore, number: int) -> None:
    row = await store.write(lambda tx: network(tx, "office"))

    def look(tx: Transaction) -> list[Any]:
        found = [tx.remote_networks.get(number), *tx.remote_networks.find(id=number)]
        return [*found, *tx.remote_networks.find(id=[row.id, number]), tx.cuts.newest(5, id=number)]

    assert await store.read(look) == [None, row, []]
    for values_ in ({"access_duration_seconds": number}, {"created_at_ms": number}):
        if number < 1 << 63 and number >= -(1 << 63) and "created_at_ms" in values_:
            continue
        with pytest.raises(InvalidInput, match=r"must be a number of (32|64) bits"):
            await store.write(lambda tx, values_=values_: tx.group_access.add(resource_id=1, group_id=1, **values_))


@given(st.one_of(st.text(), st.integers(), st.text(alphabet="\x00\ud800a"), st.none(), st.booleans(), st.binary()))
def test_a_value_is_held_or_refused_with_the_columns_name(value: object) -> None:
    for kind in (String(5), Integer(), BigInteger(), JSON()):
        column: Column[Any] = Column("it", kind)
        if values.can_hold(column, value):
            values.check(column, value)
            continue
        with pytest.raises(InvalidInput, match=r"^it ") as refused:
            values.check(column, value)
        assert refused.value.field == "it"


@pytest.mark.parametrize(
    "text", ["Bäckerei", "\U0001f980", "a'b\"c\\d%e_f", "ÅA\u030a", "  spaces  ", "\u202eright to left", "\uffff", "tab\tline\n"]
)
async def test_a_text_comes_back_and_is_found_as_it_was_written(store: SqlStore, text: str) -> None:
    written = await store.write(lambda tx: network(tx, text))
    assert written.name == text
    assert await store.read(lambda tx: tx.remote_networks.find(name=text)) == [written]


async def test_names_that_differ_in_case_or_form_differ(store: SqlStore) -> None:
    names = ["office", "Office", "OFFICE", "office ", "\u00e9", "e\u0301"]
    await store.write(lambda tx: [network(tx, name) for name in names])
    for name in names:
        assert [row.name for row in await store.read(lambda tx, name=name: tx.remote_networks.find(name=name))] == [name]
        with pytest.raises(Conflict, match="a remote network with this name exists already"):
            await store.write(lambda tx, name=name: network(tx, name))


@pytest.mark.parametrize(
    "content",
    [
        {"text": "\x00\ud800\U0001f980", "numbers": [0, -1, 1 << 100, 0.5, 1e300], "none": None, "flags": [True, False]},
        [],
        {},
        {"deep": [[[[[[{"er": []}]]]]]]},
        {"b": 1, "a": 2, "B": 3, "": 4},
    ],
)
async def test_json_comes_back_as_it_was_written(store: SqlStore, content: Any) -> None:
    row = await store.write(lambda tx: tx.devices.add(name="d", is_trusted=True, active_state="ACTIVE", facts=content))
    assert row.facts == content
    assert row.is_trusted is True
    if isinstance(content, dict):
        assert list(row.facts) == list(content)


async def test_bytes_come_back_as_they_were_written(store: SqlStore) -> None:
    content = bytes(range(256)) * 20
    values_ = {"kid": "k", "purpose": "p", "sealed": content, "public_jwk": {}, "created_at_ms": 1}
    row = await store.write(lambda tx: tx.signing_keys.add(**values_))
    assert row.sealed == content
    assert type(row.sealed) is bytes


async def test_texts_are_ordered_by_code_points(store: SqlStore) -> None:
    ids = ["b", "B", "a", "Z", "_", "é", "a b", "ab", "-a", "10", "9"]

    def begin(tx: Transaction) -> None:
        for id in ids:
            tx.sessions.add(id=id, created_at_ms=5, **SESSION)

    await store.write(begin)
    assert [row.id for row in await store.read(lambda tx: tx.sessions.find())] == sorted(ids)
    assert [row.id for row in await store.read(lambda tx: tx.sessions.all()[2:5])] == sorted(ids)[2:5]
    newest = await store.read(lambda tx: tx.sessions.newest(3, order="created_at_ms"))
    assert [row.id for row in newest] == sorted(ids, reverse=True)[:3]


async def test_rows_without_a_value_come_last_among_the_newest(store: SqlStore) -> None:
    def add(tx: Transaction) -> None:
        for id, ended in (("never", None), ("late", 9), ("early", 1)):
            tx.sessions.add(id=id, created_at_ms=5, ended_at_ms=ended, **SESSION)

    await store.write(add)
    newest = await store.read(lambda tx: tx.sessions.newest(3, order="ended_at_ms"))
    assert [row.id for row in newest] == ["late", "early", "never"]
    assert [row.id for row in await store.read(lambda tx: tx.sessions.since("ended_at_ms", 1))] == ["early", "late"]
    assert [row.id for row in await store.read(lambda tx: tx.sessions.find(ended_at_ms=None))] == ["never"]


@pytest.mark.parametrize("count", [0, 1, MANY, MANY + 1, 70_000])
async def test_a_condition_may_list_many_values(store: SqlStore, count: int) -> None:
    row = await store.write(lambda tx: network(tx, "office"))
    others = list(range(row.id + 1, row.id + count))
    found = await store.read(lambda tx: tx.remote_networks.find(id=[*others, row.id] if count else []))
    assert found == ([row] if count else [])
    names = [f"n{number}" for number in others] + ["office"] * bool(count)
    assert await store.read(lambda tx: tx.remote_networks.find(name=set(names))) == found
    assert await store.write(lambda tx: tx.remote_networks.remove(id=others)) == 0
    assert await store.write(lambda tx: tx.remote_networks.remove(id=[*others, row.id][: count or 0])) == min(count, 1)


async def test_counts_of_removed_rows_are_true(store: SqlStore) -> None:
    def add(tx: Transaction) -> None:
        for number in range(10):
            tx.used_assertions.add(kid="k", jti=str(number), expires_at_ms=number)

    await store.write(add)
    assert await store.write(lambda tx: tx.used_assertions.remove_below("expires_at_ms", 4)) == 4
    assert await store.write(lambda tx: tx.used_assertions.remove(kid="nobody")) == 0
    assert await store.write(lambda tx: tx.used_assertions.remove(kid="k")) == 6


RULES: list[tuple[str, dict[str, Any], str]] = [
    ("connectors", {"name": "c", "remote_network_id": 1, "has_status_notifications": True, "private_ips": []}, "a connector"),
    ("service_accounts", {"name": "a", "uuid": "u"}, "a service account with"),
    ("groups", {"name": "g", "is_active": True, "group_type": "MANUAL"}, "a group with this name"),
    ("users", {"email": "e", "state": "ACTIVE", "role": "MEMBER", "user_type": "MANUAL"}, "a user with this email address"),
    ("security_policies", {"name": "s", "policy_type": "RESOURCE"}, "a security policy with"),
    (
        "api_tokens",
        {"name": "t", "token_hash": "h", "scopes": [], "is_enabled": True, "allowed_ranges": [], "created_by": {}},
        "an API token with",
    ),
    (
        "sinks",
        {
            "name": "k", "kind": "syslog", "settings": {}, "streams": [], "is_enabled": True,
            "audit_position": 0, "flow_position": 0, "attempts": 0,
        },
        "a sink with",
    ),
    (
        "resources",
        {
            "name": "r", "address": "db", "alias": "al.ias", "remote_network_id": 1, "protocols": {}, "is_active": True,
            "is_visible": True, "is_browser_shortcut_enabled": False, "routing_mode": "ALL", "tags": [],
            "approval_mode": "MANUAL", "access_mode": "MANUAL",
        },
        "another resource has this alias",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("table", "row", "told"), RULES, ids=[rule[0] for rule in RULES])
async def test_a_broken_rule_is_told_in_the_same_words(store: SqlStore, table: str, row: dict[str, Any], told: str) -> None:
    await store.write(lambda tx: network(tx, "office", id=1))
    await store.write(lambda tx: getattr(tx, table).add(**row))
    # What else must be unique is another: which rule is named first is the database's choice.
    others = {name: "another" for name in ("uuid", "token_hash") if name in row}
    with pytest.raises(Conflict, match=told):
        await store.write(lambda tx: getattr(tx, table).add(**row | others))


async def test_what_others_depend_on_stays(store: SqlStore) -> None:
    office = await store.write(lambda tx: network(tx, "office"))
    connector = {"name": "c", "has_status_notifications": True, "private_ips": []}
    await store.write(lambda tx: tx.connectors.add(**connector, remote_network_id=office.id))
    for change in (
        lambda tx: tx.remote_networks.remove(id=office.id),
        lambda tx: tx.connectors.add(**connector | {"name": "d"}, remote_network_id=office.id + 1),
    ):
        with pytest.raises(Conflict, match="depend on"):
            await store.write(change)
    assert await store.read(lambda tx: len(tx.connectors.find())) == 1
