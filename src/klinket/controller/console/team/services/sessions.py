"""Sessions of a service: which client processes are logged in with its keys, and ending one."""

from __future__ import annotations

from starlette.responses import Response

from klinket.controller.app import service_accounts, sessions
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ServiceAccountRow, SessionRow
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.controller.console.team.services.receipts import with_cut, with_receipt
from klinket.controller.console.team.services.service import ListedSession, listed_sessions
from klinket.domain.errors import NotFound
from klinket.domain.role import Permission

LIST = "/team/services/{id:int}/sessions"


async def _list(page: Page) -> Response:
    id = page.number()

    def read(tx: Transaction) -> tuple[ServiceAccountRow, Part[SessionRow], list[ListedSession]]:
        row = service_accounts.get(tx, id, id)
        live = tx.sessions.matching("", (), order="created_at_ms", descending=True, service_account_id=id, ended_at_ms=None)
        part = part_of(page, live)
        return row, part, listed_sessions(page, tx, part.rows)

    row, part, lines = await page.read(read)
    return page.render("team/services/sessions.html", row=row, part=part, sessions=lines)


async def _end(page: Page) -> Response:
    id, session = page.number(), str(page.request.path_params["session"])[:100]

    def change(tx: Transaction) -> SessionRow:
        row = tx.sessions.get(session)
        if row is None or row.service_account_id != id:
            raise NotFound("Session", session)
        return sessions.end_by_admin(tx, page.actor, session)

    row, cut = await with_cut(page, change)
    told = f"Session on {row.hostname or row.address} ended. Its key is still good: the client may log in again."
    return page.redirect(with_receipt(f"/team/services/{id}", cut), told)


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list),
    changed(LIST + "/{session}/end", _end, Permission.ADMIN),
)
