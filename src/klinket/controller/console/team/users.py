"""Team > Users: who may use the console, and who gets resources through groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app import console_sessions, groups, users
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import GroupRow, UserRow
from klinket.controller.console.notices import Notice, Undo
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.controller.console.team import sign_in_link
from klinket.domain.errors import KlinketError
from klinket.domain.role import Permission

LIST = "/team/users"
FORM, ONE = "team/user_form.html", "team/user.html"
#: Roles as people read them, with what each may do.
ROLES = {
    "ADMIN": ("Admin", "everything, users and settings included"),
    "DEVOPS": ("DevOps", "sees everything; changes remote networks, connectors and resources"),
    "SUPPORT": ("Support", "sees everything, changes nothing"),
    "ACCESS_REVIEWER": ("Access reviewer", "no console yet"),
    "MEMBER": ("Member", "no console; gets resources through groups"),
}
#: Kind of pill, and word, of each state.
STATES = {"ACTIVE": ("ok", "Active"), "PENDING": ("warn", "Invited"), "DISABLED": ("idle", "Disabled")}
SEARCHED = ("email", "first_name", "last_name")
#: Groups that are offered to be joined on a user's page; there may be more, on their own pages.
OFFERED_GROUPS = 200
_WORDS: dict[str, Any] = {"roles": ROLES, "states": STATES}


@dataclass(frozen=True, slots=True)
class _Listed:
    row: UserRow
    groups: Sequence[GroupRow]
    #: When the newest session began that the controller still knows of.
    signed_in_ms: int | None


def full_name(row: UserRow) -> str:
    """Return first and last name, or the address of one without."""
    return " ".join(part for part in (row.first_name, row.last_name) if part) or row.email


def _listed(tx: Transaction, rows: Sequence[UserRow]) -> list[_Listed]:
    ids = {row.id for row in rows}
    memberships = tx.group_members.find(user_id=ids)
    found = {row.id: row for row in tx.groups.find(id={one.group_id for one in memberships})}
    mine: dict[int, list[GroupRow]] = {id: [] for id in ids}
    for one in memberships:
        mine[one.user_id].append(found[one.group_id])
    begun: dict[int, int] = {}
    for session in tx.console_sessions.find(user_id=ids, stage=Stage.FULL.value):
        if not console_sessions.is_live(session, tx.now_ms):
            continue
        begun[session.user_id] = max(session.created_at_ms, begun.get(session.user_id, 0))
    return [_Listed(row, sorted(mine[row.id], key=lambda one: one.name.lower()), begun.get(row.id)) for row in rows]


async def _list(page: Page) -> Response:
    text, role, state = page.query("q")[:100], page.query("role"), page.query("state")
    chosen: dict[str, Any] = {
        name: value for name, value, known in (("role", role, ROLES), ("state", state, STATES)) if value in known
    }

    def read(tx: Transaction) -> tuple[Part[UserRow], list[_Listed]]:
        part = part_of(page, tx.users.matching(text, SEARCHED, order="email", **chosen))
        return part, _listed(tx, part.rows)

    part, listed = await page.read(read)
    is_filtered = bool(text or chosen)
    return page.render("team/users.html", part=part, listed=listed, is_filtered=is_filtered, full_name=full_name, **_WORDS)


# ---- inviting


async def _new(page: Page, error: KlinketError | None = None) -> Response:
    if error is not None:
        return page.refuse(FORM, error, **_WORDS)
    return page.render(FORM, **_WORDS)


async def _invite(page: Page) -> Response:
    form = page.form

    def change(tx: Transaction) -> tuple[UserRow, str | None]:
        row = users.create(
            tx, page.actor, email=form.text("email"), first_name=form.optional("firstName"),
            last_name=form.optional("lastName"), role=form.text("role"),
        )  # fmt: skip
        return row, sign_in_link.make(page, tx, row)

    try:
        row, link = await page.write(change)
    except KlinketError as error:
        return await _new(page, error)
    if link is None:
        return page.redirect(f"{LIST}/{row.id}", f"{row.email} added as {ROLES[row.role][0]}.")
    return page.render("team/user_link.html", row=row, link=link, is_new=True)


async def _link(page: Page) -> Response:
    id = page.number()

    def change(tx: Transaction) -> tuple[UserRow, str | None]:
        row = users.get(tx, id, id)
        return row, sign_in_link.make(page, tx, row)

    row, link = await page.write(change)
    if link is None:
        return page.redirect(f"{LIST}/{id}", Notice(f"{row.email} has no console: there is nothing to sign in to.", "warning"))
    return page.render("team/user_link.html", row=row, link=link, is_new=False)


# ---- one user


async def _one(page: Page, error: KlinketError | None = None) -> Response:
    id = page.number()

    def read(tx: Transaction) -> dict[str, Any]:
        row = users.get(tx, id, id)
        mine = groups.of_user(tx, row)
        sessions = [one for one in tx.console_sessions.find(user_id=id) if console_sessions.is_live(one, tx.now_ms)]
        manual = tx.groups.matching("", ("name",), order="name", group_type=groups.MANUAL)[:OFFERED_GROUPS]
        joined = {one.id for one in mine}
        return {
            "row": row,
            "groups": mine,
            "offered": {str(one.id): one.name for one in manual if one.id not in joined},
            "listed": _listed(tx, [row])[0],
            "sessions": len(sessions),
        }

    values = {**await page.read(read), **_WORDS, "full_name": full_name, "may_have_link": sign_in_link.may_have}
    return page.render(ONE, **values) if error is None else page.refuse(ONE, error, **values)


async def _update(page: Page) -> Response:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> None:
        row = users.get(tx, id, id)
        form.check_unchanged(row.updated_at_ms)
        names, state = (form.text("firstName"), form.text("lastName")), form.text("state", row.state)
        if names != (row.first_name or "", row.last_name or "") or state != row.state:
            row = users.update(
                tx, page.actor, row, first_name=names[0], last_name=names[1], state=state if state != row.state else None
            )
        if form.text("role") != row.role:
            users.set_role(tx, page.actor, row, form.text("role"))

    return await page.carry_out(change, _one, lambda _: page.redirect(f"{LIST}/{id}", "Saved."))


async def _delete(page: Page) -> Response:
    id = page.number()

    def change(tx: Transaction) -> UserRow:
        row = users.get(tx, id, id)
        users.delete(tx, page.actor, row)
        return row

    return await page.carry_out(change, _one, lambda row: page.redirect(LIST, f"{row.email} deleted."))


# ---- the user's groups


async def _change_groups(page: Page, *, join: bool) -> GroupRow:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> GroupRow:
        row = users.get(tx, id, id)
        group = groups.get(tx, form.number("group"), form.text("group"))
        members = groups.member_ids(tx, group)
        groups.set_members(tx, page.actor, group, members | {row.id} if join else members - {row.id})
        return group

    return await page.write(change)


async def _join(page: Page) -> Response:
    try:
        group = await _change_groups(page, join=True)
    except KlinketError as error:
        return await _one(page, error)
    return page.redirect(f"{LIST}/{page.number()}", f"Added to {group.name}.")


async def _leave(page: Page) -> Response:
    id = page.number()
    try:
        group = await _change_groups(page, join=False)
    except KlinketError as error:
        return await _one(page, error)
    undo = Undo(f"{LIST}/{id}/groups", {"group": str(group.id)})
    return page.redirect(f"{LIST}/{id}", Notice(f"Removed from {group.name}.", undo=undo))


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list),
    shown(LIST + "/new", _new, Permission.ADMIN, secret=True),
    changed(LIST + "/new", _invite, Permission.ADMIN, secret=True),
    shown(LIST + "/{id:int}", _one),
    changed(LIST + "/{id:int}", _update, Permission.ADMIN, secret=True),
    changed(LIST + "/{id:int}/delete", _delete, Permission.ADMIN),
    changed(LIST + "/{id:int}/link", _link, Permission.ADMIN, secret=True),
    changed(LIST + "/{id:int}/groups", _join, Permission.ADMIN),
    changed(LIST + "/{id:int}/groups/leave", _leave, Permission.ADMIN),
)
