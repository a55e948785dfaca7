"""One GraphQL request: parse and validate within limits, then execute in one transaction.

A query reads one consistent snapshot. A mutation document is one write transaction with a savepoint per field: a field that
fails leaves nothing behind, its neighbours stay, and the answer is given only after the commit.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    execute_sync,
    get_operation_ast,
    parse,
    validate,
)

from klinket.controller.app.ports import Store, Transaction
from klinket.controller.graphql import limits
from klinket.controller.graphql.context import ApiCaller, ApiServices, RequestContext
from klinket.domain.errors import KlinketError

logger = logging.getLogger(__name__)

#: Parsed and validated documents kept, by their text.
CACHED_DOCUMENTS = 1_024
#: Errors reported of one document.
MAX_ERRORS = 20


class GraphQLApi:
    """Executes documents of one schema against the store."""

    def __init__(self, store: Store, schema: GraphQLSchema, services: ApiServices) -> None:
        self._store = store
        self._schema = schema
        self._services = services
        self._documents: OrderedDict[str, tuple[DocumentNode | None, list[GraphQLError]]] = OrderedDict()

    async def execute(
        self,
        query: str,
        variables: Mapping[str, Any] | None,
        operation_name: str | None,
        caller: ApiCaller,
    ) -> dict[str, Any]:
        """Return the response object of one request: `data`, and `errors` where there are any."""
        document, errors = self._document(query)
        if document is None or errors:
            return {"errors": [error.formatted for error in errors]}
        operation = get_operation_ast(document, operation_name)
        if operation is None:
            return _failed("the document holds several operations: give operationName, or it names none of them")
        given = dict(variables or {})
        try:
            limits.check(document, operation, given)
        except GraphQLError as error:
            return {"errors": [error.formatted]}
        if operation.operation is OperationType.QUERY:
            return await self._store.read(self._run(document, operation, given, caller))
        return await self._store.write(self._run(document, operation, given, caller))

    def _run(
        self, document: DocumentNode, operation: OperationDefinitionNode, variables: dict[str, Any], caller: ApiCaller
    ) -> Callable[[Transaction], dict[str, Any]]:
        def run(tx: Transaction) -> dict[str, Any]:
            result = execute_sync(
                self._schema,
                document,
                context_value=RequestContext(tx, caller, self._services),
                variable_values=variables,
                operation_name=operation.name.value if operation.name else None,
                hide_suggestions=True,
            )
            answer: dict[str, Any] = {"data": result.data}
            if result.errors:
                answer["errors"] = [_told(error) for error in result.errors[:MAX_ERRORS]]
            return answer

        return run

    def _document(self, query: str) -> tuple[DocumentNode | None, list[GraphQLError]]:
        known = self._documents.get(query)
        if known is not None:
            self._documents.move_to_end(query)
            return known
        try:
            document = parse(
                query,
                max_tokens=limits.MAX_TOKENS,
                max_source_length=limits.MAX_DOCUMENT_CHARS,
                allow_empty_selection_sets=False,
            )
        except GraphQLError as error:
            return None, [error]
        errors = validate(self._schema, document, max_errors=MAX_ERRORS, hide_suggestions=True, allow_empty_selection_sets=False)
        self._documents[query] = document, errors
        if len(self._documents) > CACHED_DOCUMENTS:
            self._documents.popitem(last=False)
        return document, errors


def _told(error: GraphQLError) -> dict[str, Any]:
    """Return what the caller is told: our own errors and GraphQL's in full, anything else only as "internal error"."""
    cause = error.original_error
    if cause is None or isinstance(cause, GraphQLError):
        return dict(error.formatted)
    told = dict(error.formatted)
    if isinstance(cause, KlinketError):
        told["extensions"] = {"code": cause.code, "hint": cause.hint}
    else:
        logger.error("admin api: %s failed", error.path, exc_info=cause)
        told["message"] = "internal error"
        told["extensions"] = {"code": "internal"}
    return told


def _failed(message: str) -> dict[str, Any]:
    return {"errors": [{"message": message}]}
