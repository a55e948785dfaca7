"""Root fields: the scope each needs, and for mutations a savepoint and the payload that clients know (ok, error, entity).

The scope stands at the resolver (`scope_of`): a document is refused as a whole before anything of it executes, and the
resolver asks once more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from klinket.controller.app import api_tokens
from klinket.controller.graphql.context import RequestContext
from klinket.domain.errors import Forbidden as Forbidden
from klinket.domain.errors import KlinketError

logger = logging.getLogger(__name__)

#: A use case behind a mutation: context and arguments in, the fields of the payload out.
Change = Callable[..., dict[str, Any]]


def require(context: RequestContext, scope: str) -> None:
    """Raise Forbidden unless the caller's token has the scope."""
    if scope not in context.caller.scopes:
        raise lacking(scope)


def lacking(scope: str) -> Forbidden:
    """Return what a caller is told whose token lacks a scope."""
    return Forbidden(f"this API token lacks the scope {scope!r}", hint="use a token that has it")


def scope_of(resolver: Callable[..., Any] | None) -> str | None:
    """Return the scope that a root field's resolver needs; None for one made by neither `query` nor `mutation`."""
    return getattr(resolver, "scope", None)


def mutation(scope: str) -> Callable[[Change], Callable[..., dict[str, Any]]]:
    """Make a resolver of a change: its errors become ok=false with their text, and undo what it did."""

    def decorate(change: Change) -> Callable[..., dict[str, Any]]:
        def resolve(_source: Any, info: Any, **arguments: Any) -> dict[str, Any]:
            context: RequestContext = info.context
            require(context, scope)
            try:
                with context.tx.savepoint():
                    return {"ok": True, "error": None, **change(context, **arguments)}
            except KlinketError as error:
                # Quoted: the text may repeat what was given, line ends included.
                logger.warning("admin api: %s refused: %s: %.300r", info.field_name, error.code, str(error))
                return {"ok": False, "error": str(error)}
            finally:
                context.siblings.clear()

        resolve.scope = scope  # type: ignore[attr-defined]
        return resolve

    return decorate


def query(resolver: Callable[..., Any]) -> Callable[..., Any]:
    """Make a resolver of a query: it needs the scope to read, and gets the context first."""

    def resolve(_source: Any, info: Any, **arguments: Any) -> Any:
        require(info.context, api_tokens.READ)
        return resolver(info.context, **arguments)

    resolve.scope = api_tokens.READ  # type: ignore[attr-defined]
    return resolve
