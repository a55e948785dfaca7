"""Who may reach a resource: services and groups are given access, with an end of it, and lose it again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from klinket.controller.app import access, access_policy, group_access, groups, resources, security_policies, service_accounts
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import GroupAccessRow, GroupRow, ResourceRow, ServiceAccountRow
from klinket.controller.console.form import Form
from klinket.controller.console.network.health import MIN_VERSION, too_old
from klinket.controller.console.network.made_cuts import cut_of
from klinket.controller.console.network.resources import LIST
from klinket.controller.console.notices import Notice, Undo
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.domain.errors import InvalidInput, KlinketError, NotFound
from klinket.domain.role import Permission

SERVICE, GROUP = "service", "group"
#: Services, and groups, offered at a time; the search finds the others.
OFFERED = 20
#: Services and groups that one form gives access.
MAX_AT_ONCE = 100
HOUR_MS = 3_600_000
#: Ends of access to choose from: milliseconds from now, and what they are called; None: it does not end.
ENDS: dict[str, tuple[int | None, str]] = {
    "never": (None, "Does not end"),
    "hour": (HOUR_MS, "1 hour"),
    "shift": (8 * HOUR_MS, "8 hours"),
    "day": (24 * HOUR_MS, "1 day"),
    "week": (7 * 24 * HOUR_MS, "7 days"),
    "month": (30 * 24 * HOUR_MS, "30 days"),
    "quarter": (90 * 24 * HOUR_MS, "90 days"),
    "year": (365 * 24 * HOUR_MS, "365 days"),
}
#: Columns of a group's access that are as on the resource where they are empty.
_OWN = ("security_policy_id", "approval_mode", "access_mode", "access_duration_seconds")
_APPROVAL_MODES = ("AUTOMATIC", "MANUAL")
_ACCESS_MODES = ("MANUAL", "AUTO_LOCK", "ACCESS_REQUEST")


@dataclass(frozen=True, slots=True)
class _Offered:
    """Somebody who may be given access. `has`: has it already, until `expires_at_ms`."""

    value: str
    name: str
    has: bool
    expires_at_ms: int | None


def _offered(tx: Transaction, row: ResourceRow, text: str) -> dict[str, Any]:
    accounts = tx.service_accounts.matching(text, ("name",), order="name")
    teams = tx.groups.matching(text, ("name",), order="name")
    some, few = accounts[:OFFERED], teams[:OFFERED]
    held = {
        one.service_account_id: one for one in tx.access.find(resource_id=row.id, service_account_id={one.id for one in some})
    }
    shared = {one.group_id: one for one in tx.group_access.find(resource_id=row.id, group_id={one.id for one in few})}

    def one(kind: str, who: ServiceAccountRow | GroupRow, has: Any) -> _Offered:
        return _Offered(f"{kind}-{who.id}", who.name, has is not None, None if has is None else has.expires_at_ms)

    return {
        "services": [one(SERVICE, who, held.get(who.id)) for who in some],
        "groups": [one(GROUP, who, shared.get(who.id)) for who in few],
        "more": len(accounts) - len(some) + len(teams) - len(few),
        "any": bool(tx.service_accounts.all()),
        "old": [other for other in tx.connectors.find(remote_network_id=row.remote_network_id) if too_old(other)],
    }


async def _choose(page: Page, error: KlinketError | None = None) -> Response:
    id, text = page.number(), page.form.text("q", page.query("q"))

    def read(tx: Transaction) -> dict[str, Any]:
        row = resources.get(tx, id, id)
        return {"row": row, **_offered(tx, row, text)}

    chosen = page.form.texts("principal") or [page.query("principal")]
    ends = {name: label for name, (_, label) in ENDS.items()}
    values = {"ends": ends, "chosen": chosen, "text": text, "min_version": MIN_VERSION, **await page.read(read)}
    if error is not None:
        return page.refuse("network/resource_access.html", error, **values)
    return page.render("network/resource_access.html", **values)


def _principal(tx: Transaction, text: str) -> ServiceAccountRow | GroupRow:
    kind, _, number = text.partition("-")
    id = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else None
    if kind == SERVICE:
        return service_accounts.get(tx, id, number)
    if kind == GROUP:
        return groups.get(tx, id, number)
    raise NotFound("Service or group", text[:40])


def _end(form: Form, now_ms: int) -> int | None:
    """Return when access ends; None: it does not. Raises InvalidInput."""
    if form.text("until"):
        try:
            day = datetime.strptime(form.text("until"), "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError as error:
            raise InvalidInput("until", "until: not a day", hint="2030-12-31") from error
        return round((day + timedelta(days=1)).timestamp() * 1000)  # to the end of that day
    if form.text("expires_at_ms"):
        return form.number("expires_at_ms")
    chosen = ENDS.get(form.text("end", "never"))
    if chosen is None:
        raise InvalidInput("end", "there is no such end of access")
    return None if chosen[0] is None else now_ms + chosen[0]


def _own_settings(tx: Transaction, form: Form, before: GroupAccessRow | None) -> dict[str, Any]:
    """Return the settings of a group's access: those given when access comes back, else those it has."""
    if before is not None:
        return {name: getattr(before, name) for name in _OWN}
    approval, mode, policy = form.optional("approval_mode"), form.optional("access_mode"), form.optional("security_policy_id")
    if approval not in (None, *_APPROVAL_MODES) or mode not in (None, *_ACCESS_MODES):
        raise InvalidInput("access_mode", "there is no such mode of access")
    seconds = form.number("access_duration_seconds") if form.text("access_duration_seconds") else None
    return {
        "approval_mode": approval,
        "access_mode": mode,
        "access_duration_seconds": access_policy.check_duration(mode, seconds) if mode is not None else None,
        "security_policy_id": None if policy is None else security_policies.get(tx, form.number("security_policy_id"), policy).id,
    }


async def _grant(page: Page) -> Response:
    id, form = page.number(), page.form

    def grant(tx: Transaction) -> list[str]:
        row = resources.get(tx, id, id)
        chosen = list(dict.fromkeys(form.texts("principal")))
        if not chosen:
            raise InvalidInput("principal", "nobody was chosen", hint="choose services or groups")
        if len(chosen) > MAX_AT_ONCE:
            raise InvalidInput("principal", f"{len(chosen)} at once, the limit is {MAX_AT_ONCE}")
        end = _end(form, tx.now_ms)
        principals = [_principal(tx, text) for text in chosen]
        for principal in principals:
            if isinstance(principal, ServiceAccountRow):
                access.grant(tx, page.actor, row, principal, end)
            else:
                before = tx.group_access.find(resource_id=row.id, group_id=principal.id)
                settings = _own_settings(tx, form, before[0] if before else None)
                group_access.grant(tx, page.actor, row, principal, expires_at_ms=end, **settings)
        return [principal.name for principal in principals]

    try:
        names = await page.write(grant)
    except KlinketError as error:
        return await _choose(page, error)
    told = names[0] if len(names) == 1 else f"{len(names)} services and groups"
    return page.redirect(f"{LIST}/{id}", f"{told} may reach it now.")


async def _remove(page: Page) -> Response:
    id, who = page.number(), page.form.text("principal")

    def remove(tx: Transaction) -> tuple[str, Undo | None, int | None]:
        row, principal = resources.get(tx, id, id), _principal(tx, who)
        if isinstance(principal, ServiceAccountRow):
            held = tx.access.find(resource_id=id, service_account_id=principal.id)
            fields = _back(tx, who, held[0].expires_at_ms, {}) if held else None
            cut = cut_of(tx, lambda: access.revoke(tx, page.actor, row, principal))
        else:
            shared = tx.group_access.find(resource_id=id, group_id=principal.id)
            own = {name: getattr(shared[0], name) for name in _OWN} if shared else {}
            fields = _back(tx, who, shared[0].expires_at_ms, own) if shared else None
            group_access.revoke(tx, page.actor, row, principal)
            cut = None
        return principal.name, None if fields is None else Undo(f"{LIST}/{id}/access", fields), cut

    name, undo, cut = await page.write(remove)
    return page.redirect(f"{LIST}/{id}", Notice(f"{name} may not reach it any more.", undo=undo, cut=cut))


def _back(tx: Transaction, who: str, expires_at_ms: int | None, own: dict[str, Any]) -> dict[str, str] | None:
    """Return the fields that give access back as it was; None where it ends too soon to be given."""
    try:
        access.check_expiry(expires_at_ms, tx.now_ms)
    except InvalidInput:
        return None
    given = {"principal": who, "expires_at_ms": expires_at_ms, **own}
    return {name: str(value) for name, value in given.items() if value is not None}


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST + "/{id:int}/access", _choose, Permission.ADMIN),
    changed(LIST + "/{id:int}/access", _grant, Permission.ADMIN),
    changed(LIST + "/{id:int}/access/remove", _remove, Permission.ADMIN),
)
