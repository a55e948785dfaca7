"""One-time links: the first admin, people who were invited, and those who lost their way in.

The code is behind the `#` of the link: browsers do not send that part, so it is in no log and no history of a proxy. A script
puts it into the form; without one it is typed or pasted.
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.routing import BaseRoute

from klinket.controller.app import console_sessions, passwords, sign_in, sign_in_links
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import SignInLinkRow, UserRow
from klinket.controller.app.users import parse_email, parse_person
from klinket.controller.console.gate import set_cookie
from klinket.controller.console.sign_in.visit import SignIn, Visit, visited
from klinket.domain.errors import InvalidInput, KlinketError
from klinket.domain.password import check_password


async def _show(visit: Visit, error: KlinketError | None = None) -> Response:
    return visit.render("link.html", error)


async def _live(visit: Visit) -> tuple[SignInLinkRow, UserRow | None]:
    text = visit.form.text("link")

    def look(tx: Transaction) -> tuple[SignInLinkRow, UserRow | None]:
        row = sign_in_links.by_text(tx, text.rpartition("#")[2])
        return row, None if row.user_id is None else tx.users.get(row.user_id)

    return await visit.sign_in.console.store.read(look)


async def _open(visit: Visit) -> Response:
    try:
        _, user = await _live(visit)
    except KlinketError as error:
        return await _show(visit, error)
    return visit.render("account.html", link=visit.form.text("link"), owner=user)


async def _accept(visit: Visit) -> Response:
    service, form = visit.sign_in, visit.form
    row, owner = await _live(visit)
    try:
        email = parse_email(form.text("email")) if owner is None else owner.email
        first, last = (parse_person(form.text(name), name) for name in ("firstName", "lastName"))
        personal = tuple(one for one in (email, email.partition("@")[0], first, last, service.console.config.network) if one)
        password = check_password(form.raw("password"), personal)
        if form.raw("again") != password:
            raise InvalidInput("again", "the passwords are not the same")
        phc = await service.hasher.hashed(password)
    except KlinketError as error:
        return visit.render("account.html", error, link=form.text("link"), owner=owner)

    def accept(tx: Transaction) -> str:
        actor = sign_in.actor_of(owner, visit.browser)
        user = sign_in_links.accept(tx, row, actor, email=email, first_name=first, last_name=last)
        passwords.put(tx, sign_in.actor_of(user, visit.browser), user, phc)
        browser = visit.browser
        return console_sessions.begin(
            tx, user, Stage.SET_UP, address=browser.address, user_agent=browser.user_agent, entropy=service.entropy
        )[1]

    text = await service.console.store.write(accept)
    response = visit.lead("/sign-in/set-up", keep_next=False)
    set_cookie(response, text)
    return response


def routes(service: SignIn) -> list[BaseRoute]:
    """Return the routes of these pages."""
    return [
        visited(service, "GET", "/sign-in/link", _show),
        visited(service, "POST", "/sign-in/link", _open),
        visited(service, "POST", "/sign-in/link/account", _accept),
    ]
