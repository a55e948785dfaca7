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
from graphql.execution import Executor

from klinket.controller.app.ports import Store, Transaction
from klinket.controller.graphql import limits
from klinket.controller.graphql.context import ApiCaller, ApiServices, RequestContext
from klinket.controller.graphql.lane import Lane
from klinket.domain.errors import KlinketError

logger = logging.getLogger(__name__)

#: Parsed and validated documents kept, by their text.
CACHED_DOCUMENTS = 1_024
#: Queries that execute at a time: the store has more reader threads, and those are for logins and live channels.
API_READS = 2
#: Errors reported of one document.
MAX_ERRORS = 20


class TookTooLong(KlinketError):
    """An operation has executed for too long; nothing of it stays."""

    code = "took-too-long"
    default_hint = "ask for smaller pages"


class _TimedExecutor(Executor[Any]):
    """Looks at the clock before each field."""

    def execute_field(self, *arguments: Any, **named: Any) -> Any:
        limits.check_time()
        return super().execute_field(*arguments, **named)


class GraphQLApi:
    """Executes documents of one schema against the store."""

    def __init__(self, store: Store, schema: GraphQLSchema, services: ApiServices, reads: Lane | None = None) -> None:
        """`reads`: shared by all APIs of a controller, so that together they leave reader threads to logins and channels."""
        self._store = store
        self._schema = schema
        self._services = services
        self._reads = reads or Lane(API_READS)
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
            limits.check(self._schema, document, operation, given)
        except GraphQLError as error:
            return {"errors": [error.formatted]}
        run = self._run(document, operation, given, caller)
        try:
            if operation.operation is OperationType.QUERY:
                return await self._reads.run(lambda: self._store.read(run))
            return await self._store.write(run)
        except TookTooLong as error:
            return {"errors": [{"message": error.message, "extensions": {"code": error.code, "hint": error.hint}}]}

    def _run(
        self, document: DocumentNode, operation: OperationDefinitionNode, variables: dict[str, Any], caller: ApiCaller
    ) -> Callable[[Transaction], dict[str, Any]]:
        def run(tx: Transaction) -> dict[str, Any]:
            try:
                with limits.limited_time():
                    result = execute_sync(
                        self._schema,
                        document,
                        context_value=RequestContext(tx, caller, self._services),
                        variable_values=variables,
                        operation_name=operation.name.value if operation.name else None,
                        executor_class=_TimedExecutor,
                        hide_suggestions=True,
                    )
            except limits.OutOfTime:
                raise TookTooLong(f"the request was ended after {limits.MAX_EXECUTE_SECONDS:.0f} s") from None
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
