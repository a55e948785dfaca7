"""Fields of the contract whose objects are not there yet: they read as empty, and changes say so.

To fill one in: give its noun a file of its own, and take its line out here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from klinket.controller.app.api_tokens import WRITE
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.mutation import mutation, query
from klinket.controller.graphql.paging import connection
from klinket.domain.errors import Conflict

SINGLE = ("group", "user", "securityPolicy", "device")
MANY = ("groups", "users", "securityPolicies", "devices", "serialNumbers")
CHANGES = (
    "groupCreate", "groupUpdate", "groupDelete",
    "userCreate", "userDetailsUpdate", "userRoleUpdate", "userDelete", "userResetMfa",
    "securityPolicyUpdate",
    "deviceUpdate", "deviceArchive", "deviceUnarchive", "deviceBlock", "deviceUnblock",
    "serialNumbersCreate", "serialNumbersDelete",
)  # fmt: skip


@query
def _nothing(_context: RequestContext, **_: Any) -> None:
    return None


@query
def _empty(_context: RequestContext, **page: Any) -> dict[str, Any]:
    return connection([], page)


def _refused(name: str) -> Callable[..., dict[str, Any]]:
    @mutation(WRITE)
    def refuse(_context: RequestContext, **_: Any) -> dict[str, Any]:
        raise Conflict(f"{name} is not supported yet by this controller")

    return refuse


FIELDS: dict[str, Callable[..., Any]] = {
    **{f"Query.{name}": _nothing for name in SINGLE},
    **{f"Query.{name}": _empty for name in MANY},
    **{f"Mutation.{name}": _refused(name) for name in CHANGES},
}
