"""Limits of a service: what all its keys together may take, and the form that changes it."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from klinket.controller.app import account_limits, service_accounts
from klinket.controller.app.ports import Transaction
from klinket.controller.console.form import Form
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, changed
from klinket.controller.console.team.services import service
from klinket.controller.console.team.services.limit_words import WORDS
from klinket.domain.account_limits import check_limit
from klinket.domain.errors import InvalidInput, KlinketError
from klinket.domain.role import Permission

LIST = "/team/services"


def _given(form: Form) -> Mapping[str, float | None]:
    """Return the limits of a form, None where a field is empty: the default; raises InvalidInput."""
    given: dict[str, float | None] = {}
    for name, words in WORDS.items():
        text = form.text(name)
        try:
            given[name] = check_limit(name, float(text), words) if text else None
        except InvalidInput as error:
            raise InvalidInput(name, error.message) from error
        except ValueError as error:
            raise InvalidInput(name, f"{words} must be a number") from error
    return given


async def _set(page: Page) -> Response:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> None:
        row = service_accounts.get(tx, id, id)
        form.check_unchanged(account_limits.changed_at(tx, id), "limits_seen")
        account_limits.set_own(tx, page.actor, row, _given(form), {name: name for name in WORDS})

    try:
        await page.write(change)
    except KlinketError as error:
        return await service.shown_service(page, error)
    return page.redirect(f"{LIST}/{id}", "Limits saved. They count from the next login and the next flow on, bandwidth at once.")


ROUTES: tuple[ConsoleRoute, ...] = (changed(LIST + "/{id:int}/limits", _set, Permission.ADMIN),)
