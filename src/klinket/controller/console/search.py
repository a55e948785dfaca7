"""Search over everything: a page, and the results under the field in the top bar while somebody types."""

from __future__ import annotations

from starlette.responses import Response

from klinket.controller.app import search
from klinket.controller.app.search import Found
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, shown
from klinket.controller.graphql.global_id import from_global_id
from klinket.domain.role import Permission

#: Where results lead.
_PLACES = {
    "service": "/team/services/{id}",
    "key": "/team/services/{owner}",
    "resource": "/network/resources/{id}",
    "connector": "/network/connectors/{id}",
    "network": "/network/remote-networks/{id}",
    "user": "/team/users/{id}",
    "group": "/team/groups/{id}",
    "relay": "/settings/relays/{id}",
    "token": "/settings/api-tokens/{id}",
}
#: Types whose ids the Admin API gives, as Terraform and others show them.
_TYPES = {
    "ServiceAccount": "service",
    "ServiceAccountKey": "key",
    "Resource": "resource",
    "Connector": "connector",
    "RemoteNetwork": "network",
    "User": "user",
    "Group": "group",
}
#: Kinds that not everybody who may read is shown.
_PERMISSIONS = {"token": Permission.ADMIN}


def _place(found: Found) -> str:
    return _PLACES[found.kind].format(id=found.id, owner=found.owner)


async def _search(page: Page) -> Response:
    text, kind = page.query("q"), page.query("kind")
    allowed = [name for name in search.KINDS if page.may(_PERMISSIONS.get(name, Permission.READ))]
    kinds = [kind] if kind in allowed else allowed
    named = from_global_id(text) if len(text) <= search.MAX_TEXT else None
    if named is not None and _TYPES.get(named[0]) in kinds:
        groups = await page.read(lambda tx: search.one(tx, _TYPES[named[0]], named[1]))
    else:
        groups = await page.read(lambda tx: search.search(tx, text, kinds))
    template = "search_results.html" if page.is_fragment else "search.html"
    return page.render(template, text=text[: search.MAX_TEXT], kind=kind if kind in allowed else "", groups=groups, place=_place)


ROUTES: tuple[ConsoleRoute, ...] = (shown("/search", _search),)
