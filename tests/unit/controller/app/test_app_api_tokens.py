"""What a token may make of other tokens, what it may not do to itself, and what the audit says of both."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import pytest

from klinket.controller.app import api_tokens
from klinket.controller.app.rows import ApiTokenRow
from klinket.domain.api_token import MS_PER_DAY
from klinket.domain.audit import SYSTEM, Actor, ActorType, AuditAction
from klinket.domain.errors import AuthenticationFailed, Conflict, Forbidden, InvalidInput, NotFound

if TYPE_CHECKING:
    from tests.unit.controller.app.conftest import Inventory

PROVISION, READ = ["provision"], ["read"]


async def made(inventory: Inventory, by: ApiTokenRow | None = None, **values: Any) -> tuple[ApiTokenRow, str]:
    values = {"name": f"token {os.urandom(4).hex()}", "scopes": PROVISION, **values}
    return await inventory.write(lambda tx: api_tokens.create(tx, actor(by), entropy=os.urandom, **values))


async def changed(inventory: Inventory, by: ApiTokenRow | None, row: ApiTokenRow, **values: Any) -> ApiTokenRow:
    return await inventory.write(lambda tx: api_tokens.update(tx, actor(by), row, **values))


def actor(row: ApiTokenRow | None) -> Actor:
    return SYSTEM if row is None else Actor(ActorType.API, id=str(row.id), name=row.name)


async def believed(inventory: Inventory, text: str) -> bool:
    try:
        await inventory.read(lambda tx: api_tokens.by_text(tx, text))
    except AuthenticationFailed as error:
        return (error.message, error.hint) != (api_tokens.NOT_BELIEVED, api_tokens.NOT_BELIEVED_HINT)
    return True


# ---- the life of one token


async def test_a_token_ends_with_its_expiry_to_the_millisecond(inventory: Inventory) -> None:
    row, text = await made(inventory, days=30)
    assert row.expires_at_ms is not None
    assert row.expires_at_ms == row.created_at_ms + 30 * MS_PER_DAY
    inventory.now = (row.expires_at_ms - 1) / 1000
    assert await believed(inventory, text)
    inventory.now = row.expires_at_ms / 1000
    assert not await believed(inventory, text)


async def test_a_disabled_token_opens_nothing_until_it_is_enabled_again(inventory: Inventory) -> None:
    row, text = await made(inventory)
    row = await changed(inventory, None, row, is_enabled=False)
    assert not await believed(inventory, text)
    await changed(inventory, None, row, is_enabled=True)
    assert await believed(inventory, text)
    await inventory.write(lambda tx: api_tokens.delete(tx, SYSTEM, row))
    assert not await believed(inventory, text)
    with pytest.raises(NotFound, match="API token with id 'x' does not exist"):
        await inventory.read(lambda tx: api_tokens.get(tx, row.id, "x"))


async def test_its_use_is_noted_as_no_change_of_it(inventory: Inventory) -> None:
    row, _ = await made(inventory)
    events = len(await inventory.read(lambda tx: tx.audit.find()))
    inventory.now += 90
    await inventory.write(lambda tx: api_tokens.note_use(tx, row.id))
    await inventory.write(lambda tx: api_tokens.note_use(tx, 999))
    noted = await inventory.read(lambda tx: tx.api_tokens.get(row.id))
    assert noted is not None
    assert (noted.last_used_ms, noted.updated_at_ms) == (round(inventory.now * 1000), row.updated_at_ms)
    assert len(await inventory.read(lambda tx: tx.audit.find())) == events


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": " "}, "name"),
        ({"scopes": []}, "scopes"),
        ({"days": 366}, "expirationTime"),
        ({"allowed_ranges": ["office"]}, "allowedRanges"),
    ],
)
async def test_a_value_that_breaks_a_rule_is_refused_by_field(inventory: Inventory, values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await made(inventory, **values)
    assert refused.value.field == field
    assert await inventory.read(lambda tx: tx.api_tokens.find()) == []


async def test_two_tokens_never_share_a_name(inventory: Inventory) -> None:
    await made(inventory, name="ops")
    with pytest.raises(Conflict, match="an API token with this name exists already"):
        await made(inventory, name="ops")


# ---- what one token may make of others

OFFICE, OUTSIDE = ["192.0.2.0/24"], ["198.51.100.0/24"]
#: (own ranges, own days) -> (ranges, days) of another token, and whether it may be made and edited.
BOUNDS = [
    ([], 0, [], 0, None),
    ([], 0, OFFICE, 30, None),
    (OFFICE, 0, OFFICE, 0, None),
    (OFFICE, 0, ["192.0.2.7"], 0, None),
    (OFFICE, 0, [], 0, "source addresses"),
    (OFFICE, 0, OUTSIDE, 0, "source addresses"),
    (OFFICE, 0, [*OFFICE, *OUTSIDE], 0, "source addresses"),
    ([], 30, [], 30, None),
    ([], 30, [], 7, None),
    ([], 30, [], 31, "a later expiry"),
    ([], 30, [], 0, "a later expiry"),
]


@pytest.mark.parametrize(("own_ranges", "own_days", "ranges", "days", "refused"), BOUNDS)
async def test_a_token_makes_edits_and_deletes_only_what_can_do_no_more_than_itself(
    inventory: Inventory, own_ranges: Collection[str], own_days: int, ranges: Collection[str], days: int, refused: str | None
) -> None:
    own, _ = await made(inventory, allowed_ranges=own_ranges, days=own_days)
    there, _ = await made(inventory, allowed_ranges=ranges, days=days)
    attempts = (
        made(inventory, own, allowed_ranges=ranges, days=days),
        changed(inventory, own, there, name="other"),
        changed(inventory, own, there, is_enabled=False),
        inventory.write(lambda tx: api_tokens.delete(tx, actor(own), there)),
    )
    before = await inventory.read(lambda tx: (tx.api_tokens.find(), len(tx.audit.find())))
    for attempt in attempts:
        if refused is None:
            await attempt
        else:
            with pytest.raises(Forbidden, match=refused):
                await attempt
    if refused is not None:
        assert await inventory.read(lambda tx: (tx.api_tokens.find(), len(tx.audit.find()))) == before


async def test_an_edit_gives_no_more_than_the_editor_has(inventory: Inventory) -> None:
    own, _ = await made(inventory, allowed_ranges=OFFICE)
    there, _ = await made(inventory, allowed_ranges=["192.0.2.7"], scopes=READ)
    assert (await changed(inventory, own, there, scopes=PROVISION)).scopes == ["read", "write", "provision"]
    for ranges in ([], OUTSIDE):
        with pytest.raises(Forbidden, match="source addresses"):
            await changed(inventory, own, there, allowed_ranges=ranges)
    weak, _ = await made(inventory, scopes=["write"])
    for attempt in (made(inventory, weak), changed(inventory, weak, there, name="mine")):
        with pytest.raises(Forbidden, match="scopes that your own lacks"):
            await attempt


async def test_of_itself_a_token_changes_the_name_only(inventory: Inventory) -> None:
    own, text = await made(inventory, allowed_ranges=OFFICE)
    own = await changed(inventory, own, own, name="renamed", scopes=PROVISION, is_enabled=True, allowed_ranges=OFFICE)
    assert own.name == "renamed"
    attempts = (
        changed(inventory, own, own, is_enabled=False),
        changed(inventory, own, own, scopes=READ),
        changed(inventory, own, own, allowed_ranges=["192.0.2.7"]),
        changed(inventory, own, own, allowed_ranges=[]),
        inventory.write(lambda tx: api_tokens.delete(tx, actor(own), own)),
    )
    for attempt in attempts:
        with pytest.raises(Conflict, match="can change nothing of itself but its name"):
            await attempt
    assert await believed(inventory, text)


async def test_two_tokens_never_end_each_other(inventory: Inventory) -> None:
    """Whoever comes second was believed when its request began, and is not any more when it is carried out."""
    first, _ = await made(inventory)
    second, _ = await made(inventory)
    await changed(inventory, first, second, is_enabled=False)
    with pytest.raises(AuthenticationFailed):
        await inventory.write(lambda tx: api_tokens.delete(tx, actor(second), first))
    await inventory.write(lambda tx: api_tokens.delete(tx, actor(first), second))
    with pytest.raises(AuthenticationFailed):
        await changed(inventory, second, first, is_enabled=False)
    assert [row.id for row in await inventory.read(lambda tx: tx.api_tokens.find(is_enabled=True))] == [first.id]


# ---- the audit


async def test_the_audit_tells_permission_and_ranges_before_and_after(inventory: Inventory) -> None:
    row, text = await made(inventory, name="terraform", scopes=READ)
    await changed(inventory, None, row, scopes=["write"], allowed_ranges=["192.0.2.0/24", "2001:db8::/32"], is_enabled=False)
    await inventory.write(lambda tx: api_tokens.delete(tx, SYSTEM, api_tokens.get(tx, row.id, "")))
    created, edited, deleted = (await inventory.read(lambda tx: tx.audit.find()))[-3:]
    assert [event.action for event in (created, edited, deleted)] == [
        AuditAction.CREATE.value,
        AuditAction.EDIT.value,
        AuditAction.DELETE.value,
    ]
    before = {
        "version": "1",
        "type": "publicAPIKey",
        "id": str(row.id),
        "name": "terraform",
        "permission": "read only",
        "allowedIpRange": None,
    }
    after = {**before, "permission": "read write", "allowedIpRange": "192.0.2.0/24, 2001:db8::/32"}
    assert created.targets == [before]
    assert (edited.targets, edited.detail) == ([after], {"before": before, "isEnabled": False})
    assert deleted.targets == [after]
    assert text not in str([created, edited, deleted])


async def test_an_edit_that_changes_nothing_is_no_event(inventory: Inventory) -> None:
    row, _ = await made(inventory)
    events = len(await inventory.read(lambda tx: tx.audit.find()))
    assert await changed(inventory, None, row, name=row.name, scopes=PROVISION, is_enabled=True, allowed_ranges=[]) == row
    assert len(await inventory.read(lambda tx: tx.audit.find())) == events
