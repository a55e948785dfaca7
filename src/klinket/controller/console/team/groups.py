"""Team > Groups: how users get resources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app import groups, security_policies, users
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import GroupAccessRow, GroupRow, ResourceRow, SecurityPolicyRow, UserRow
from klinket.controller.console.notices import Notice, Undo
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.controller.console.team.users import SEARCHED, full_name
from klinket.domain.errors import KlinketError
from klinket.domain.role import Permission

LIST = "/team/groups"
FORM, ONE = "team/group_form.html", "team/group.html"
#: What people read of each type, and what it forbids (facts §8).
TYPES = {
    groups.MANUAL: ("Manual", "Edited here."),
    groups.SYNCED: (
        "Synced",
        "Comes from the identity provider. Name, state and members are changed there and cannot be edited or deleted here.",
    ),
    groups.SYSTEM: (
        "System",
        "Every user is a member, always. It cannot be renamed, disabled or deleted, and its members cannot be edited.",
    ),
}
#: Users that a search for new members shows.
FOUND_USERS = 20
#: Users that match, of which those are looked for.
MATCHING_USERS = 1_000
MAX_POLICIES = 200


@dataclass(frozen=True, slots=True)
class _Listed:
    row: GroupRow
    members: int
    resources: int
    policy: SecurityPolicyRow | None


def _listed(tx: Transaction, rows: Sequence[GroupRow]) -> list[_Listed]:
    policies = {row.id: row for row in tx.security_policies.find(id={row.security_policy_id for row in rows} - {None})}
    everybody = tx.users.count()
    return [
        _Listed(
            row,
            everybody if row.group_type == groups.SYSTEM else tx.group_members.count(group_id=row.id),
            tx.group_access.count(group_id=row.id),
            policies.get(row.security_policy_id or 0),
        )
        for row in rows
    ]


async def _list(page: Page) -> Response:
    text, type = page.query("q")[:100], page.query("type")
    chosen: dict[str, Any] = {"group_type": type} if type in TYPES else {}

    def read(tx: Transaction) -> tuple[Part[GroupRow], list[_Listed]]:
        part = part_of(page, tx.groups.matching(text, ("name",), order="name", **chosen))
        return part, _listed(tx, part.rows)

    part, listed = await page.read(read)
    return page.render("team/groups.html", part=part, listed=listed, types=TYPES, is_filtered=bool(text or chosen))


def _policies(tx: Transaction) -> dict[str, str]:
    rows = tx.security_policies.matching("", ("name",), order="name")[:MAX_POLICIES]
    return {"": "The resource's policy", **{str(row.id): row.name for row in rows}}


async def _new(page: Page, error: KlinketError | None = None) -> Response:
    policies = await page.read(_policies)
    return page.render(FORM, policies=policies) if error is None else page.refuse(FORM, error, policies=policies)


def _chosen_policy(page: Page, tx: Transaction) -> SecurityPolicyRow | None:
    if not page.form.text("policy"):
        return None
    return security_policies.get(tx, page.form.number("policy"), page.form.text("policy"))


async def _create(page: Page) -> Response:
    def change(tx: Transaction) -> GroupRow:
        policy = _chosen_policy(page, tx)
        return groups.create(tx, page.actor, name=page.form.text("name"), security_policy_id=policy.id if policy else None)

    try:
        row = await page.write(change)
    except KlinketError as error:
        return await _new(page, error)
    return page.redirect(f"{LIST}/{row.id}", f"Group {row.name} created. Next: add members.")


# ---- one group


@dataclass(frozen=True, slots=True)
class _Reached:
    access: GroupAccessRow
    resource: ResourceRow


def _members(page: Page, tx: Transaction, row: GroupRow, members: set[int]) -> Part[UserRow]:
    text = page.query("q")[:100]
    if row.group_type == groups.SYSTEM:
        return part_of(page, tx.users.matching(text, SEARCHED, order="email"))
    return part_of(page, tx.users.matching(text, SEARCHED, order="email", id=members))


def _found(page: Page, tx: Transaction, members: set[int]) -> list[UserRow]:
    """Return users that may be added, as the search asks: the first of those that match and are no members."""
    text = page.query("add")[:100]
    found: list[UserRow] = []
    if text:
        matching = tx.users.matching(text, SEARCHED, order="email")
        for begin in range(0, min(len(matching), MATCHING_USERS), 100):
            found += [user for user in matching[begin : begin + 100] if user.id not in members]
            if len(found) >= FOUND_USERS:
                break
    return found[:FOUND_USERS]


def _reached(tx: Transaction, row: GroupRow) -> list[_Reached]:
    access = tx.group_access.newest(100, group_id=row.id)
    resources = {one.id: one for one in tx.resources.find(id={one.resource_id for one in access})}
    return sorted((_Reached(one, resources[one.resource_id]) for one in access), key=lambda one: one.resource.name.lower())


async def _one(page: Page, error: KlinketError | None = None) -> Response:
    id = page.number()

    def read(tx: Transaction) -> dict[str, Any]:
        row = groups.get(tx, id, id)
        manual = row.group_type == groups.MANUAL
        members = set() if row.group_type == groups.SYSTEM else groups.member_ids(tx, row)
        return {
            "row": row,
            "listed": _listed(tx, [row])[0],
            "part": _members(page, tx, row, members),
            "found": _found(page, tx, members) if manual else [],
            "reached": _reached(tx, row),
            "policies": _policies(tx),
        }

    values = {**await page.read(read), "types": TYPES, "full_name": full_name}
    return page.render(ONE, **values) if error is None else page.refuse(ONE, error, **values)


async def _update(page: Page) -> Response:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> None:
        row = groups.get(tx, id, id)
        form.check_unchanged(row.updated_at_ms)
        policy = _chosen_policy(page, tx)
        manual = row.group_type == groups.MANUAL
        former = tx.security_policies.get(row.security_policy_id) if row.security_policy_id is not None else None
        row = groups.update(
            tx, page.actor, row, name=form.text("name") if manual else None,
            is_active=form.flag("is_active") if manual else None, security_policy_id=policy.id if policy else None,
        )  # fmt: skip
        if policy is None and former is not None:
            security_policies.withdraw(tx, page.actor, former, row)

    return await page.carry_out(change, _one, lambda _: page.redirect(f"{LIST}/{id}", "Saved."))


async def _delete(page: Page) -> Response:
    id = page.number()

    def change(tx: Transaction) -> GroupRow:
        row = groups.get(tx, id, id)
        groups.delete(tx, page.actor, row)
        return row

    return await page.carry_out(change, _one, lambda row: page.redirect(LIST, f"Group {row.name} deleted."))


async def _change_members(page: Page, *, add: bool) -> UserRow:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> UserRow:
        row = groups.get(tx, id, id)
        user = users.get(tx, form.number("user"), form.text("user"))
        members = groups.member_ids(tx, row)
        groups.set_members(tx, page.actor, row, members | {user.id} if add else members - {user.id})
        return user

    return await page.write(change)


async def _add(page: Page) -> Response:
    try:
        user = await _change_members(page, add=True)
    except KlinketError as error:
        return await _one(page, error)
    return page.redirect(f"{LIST}/{page.number()}", f"{full_name(user)} added.")


async def _take_out(page: Page) -> Response:
    try:
        user = await _change_members(page, add=False)
    except KlinketError as error:
        return await _one(page, error)
    undo = Undo(f"{LIST}/{page.number()}/members", {"user": str(user.id)})
    return page.redirect(f"{LIST}/{page.number()}", Notice(f"{full_name(user)} removed.", undo=undo))


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list),
    shown(LIST + "/new", _new, Permission.ADMIN),
    changed(LIST + "/new", _create, Permission.ADMIN),
    shown(LIST + "/{id:int}", _one),
    changed(LIST + "/{id:int}", _update, Permission.ADMIN),
    changed(LIST + "/{id:int}/delete", _delete, Permission.ADMIN),
    changed(LIST + "/{id:int}/members", _add, Permission.ADMIN),
    changed(LIST + "/{id:int}/members/remove", _take_out, Permission.ADMIN),
)
