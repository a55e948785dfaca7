"""Policies: what users have to show before they reach something. They never apply to services."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app import groups, resources, security_policies
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import GroupRow, ResourceRow, SecurityPolicyRow
from klinket.controller.console.notices import Notice, Undo
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.domain.errors import KlinketError
from klinket.domain.role import Permission

LIST = "/policies"
FORM, ONE = "policies/policy_form.html", "policies/policy.html"
#: Groups and resources with the policy that its page lists, and that a search shows.
SHOWN, FOUND = 100, 20
_WORDS: dict[str, Any] = {"default_name": security_policies.DEFAULT_NAME}


@dataclass(frozen=True, slots=True)
class _Listed:
    row: SecurityPolicyRow
    groups: int
    resources: int
    #: Groups whose access to single resources has this policy.
    accesses: int


def _listed(tx: Transaction, rows: Sequence[SecurityPolicyRow]) -> list[_Listed]:
    return [
        _Listed(
            row,
            tx.groups.count(security_policy_id=row.id),
            tx.resources.count(security_policy_id=row.id),
            tx.group_access.count(security_policy_id=row.id),
        )
        for row in rows
    ]


async def _list(page: Page) -> Response:
    text = page.query("q")[:100]

    def read(tx: Transaction) -> tuple[Part[SecurityPolicyRow], list[_Listed]]:
        part = part_of(page, tx.security_policies.matching(text, ("name",), order="name"))
        return part, _listed(tx, part.rows)

    part, listed = await page.read(read)
    return page.render("policies/policies.html", part=part, listed=listed, **_WORDS)


async def _new(page: Page, error: KlinketError | None = None) -> Response:
    return page.render(FORM) if error is None else page.refuse(FORM, error)


async def _create(page: Page) -> Response:
    try:
        row = await page.write(lambda tx: security_policies.create(tx, page.actor, name=page.form.text("name")))
    except KlinketError as error:
        return await _new(page, error)
    return page.redirect(f"{LIST}/{row.id}", f"Policy {row.name} created. Next: assign it to groups or resources.")


async def _one(page: Page, error: KlinketError | None = None) -> Response:
    id, text = page.number(), page.query("add")[:100]

    def read(tx: Transaction) -> dict[str, Any]:
        row = security_policies.get(tx, id, id)
        found_groups: list[GroupRow] = []
        found_resources: list[ResourceRow] = []
        if text:
            found_groups = list(tx.groups.matching(text, ("name",), order="name")[:FOUND])
            found_resources = list(tx.resources.matching(text, ("name", "address"), order="name")[:FOUND])
        return {
            "row": row,
            "listed": _listed(tx, [row])[0],
            "groups": tx.groups.matching("", ("name",), order="name", security_policy_id=id)[:SHOWN],
            "resources": tx.resources.matching("", ("name",), order="name", security_policy_id=id)[:SHOWN],
            "found_groups": [one for one in found_groups if one.security_policy_id != id],
            "found_resources": [one for one in found_resources if one.security_policy_id != id],
        }

    values = {**await page.read(read), **_WORDS}
    return page.render(ONE, **values) if error is None else page.refuse(ONE, error, **values)


async def _rename(page: Page) -> Response:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> None:
        row = security_policies.get(tx, id, id)
        form.check_unchanged(row.updated_at_ms)
        security_policies.rename(tx, page.actor, row, form.text("name"))

    return await page.carry_out(change, _one, lambda _: page.redirect(f"{LIST}/{id}", "Saved."))


async def _delete(page: Page) -> Response:
    id = page.number()

    def change(tx: Transaction) -> SecurityPolicyRow:
        row = security_policies.get(tx, id, id)
        security_policies.delete(tx, page.actor, row)
        return row

    return await page.carry_out(change, _one, lambda row: page.redirect(LIST, f"Policy {row.name} deleted."))


# ---- where it applies


def _assign(page: Page, tx: Transaction, *, here: bool) -> str:
    """Give the policy to a group or a resource, or take it away; return the name of what it was."""
    form, row = page.form, security_policies.get(tx, page.number(), page.number())
    if form.text("group"):
        group = groups.get(tx, form.number("group"), form.text("group"))
        if here:
            groups.update(tx, page.actor, group, name=None, is_active=None, security_policy_id=row.id)
        else:
            security_policies.withdraw(tx, page.actor, row, group)
        return f"group {group.name}"
    resource = resources.get(tx, form.number("resource"), form.text("resource"))
    if here or resource.security_policy_id == row.id:
        resources.update(tx, page.actor, resource, {"security_policy_id": row.id if here else None})
    return f"resource {resource.name}"


async def _add(page: Page) -> Response:
    try:
        what = await page.write(lambda tx: _assign(page, tx, here=True))
    except KlinketError as error:
        return await _one(page, error)
    return page.redirect(f"{LIST}/{page.number()}", f"Assigned to {what}.")


async def _take_away(page: Page) -> Response:
    try:
        what = await page.write(lambda tx: _assign(page, tx, here=False))
    except KlinketError as error:
        return await _one(page, error)
    fields = {name: page.form.text(name) for name in ("group", "resource") if page.form.text(name)}
    notice = Notice(f"Taken from {what}.", undo=Undo(f"{LIST}/{page.number()}/assign", fields))
    return page.redirect(f"{LIST}/{page.number()}", notice)


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list),
    shown(LIST + "/new", _new, Permission.ADMIN),
    changed(LIST + "/new", _create, Permission.ADMIN),
    shown(LIST + "/{id:int}", _one),
    changed(LIST + "/{id:int}", _rename, Permission.ADMIN),
    changed(LIST + "/{id:int}/delete", _delete, Permission.ADMIN),
    changed(LIST + "/{id:int}/assign", _add, Permission.ADMIN),
    changed(LIST + "/{id:int}/withdraw", _take_away, Permission.ADMIN),
)
