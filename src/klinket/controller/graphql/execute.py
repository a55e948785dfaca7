"""One GraphQL request: parse and validate within limits, then execute in one transaction.

A query reads one consistent snapshot. A mutation document is one write transaction with a savepoint per field: a field that
fails leaves nothing behind, its neighbours stay, and the answer is given only after the commit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    execute_sync,
    get_operation_ast,
)

from klinket.controller.app.api_tokens import ALL_SCOPES, READ
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.rehearsal import Foreseen, would_cut
from klinket.controller.graphql import deadline, documents, limits
from klinket.controller.graphql.context import ApiCaller, ApiServices, RequestContext
from klinket.controller.graphql.documents import MAX_ERRORS, Documents
from klinket.controller.graphql.executor import TimedExecutor
from klinket.controller.graphql.frames import with_room
from klinket.controller.graphql.global_id import to_global_id
from klinket.controller.graphql.lane import Lane
from klinket.controller.graphql.limits import DocumentInvalid
from klinket.controller.graphql.mutation import lacking, scope_of
from klinket.domain.errors import KlinketError

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Queries that execute at a time: the store has more reader threads, and those are for logins and live channels.
API_READS = 2
#: Documents that are parsed, validated and counted at a time, in threads: the event loop has cuts and heartbeats to carry.
API_PREPARES = 2


@dataclass(frozen=True)
class Operation:
    """A document that may be executed: within all limits. `mutations`: how many it holds; `scopes`: what it needs."""

    document: DocumentNode
    node: OperationDefinitionNode
    variables: dict[str, Any]
    scopes: frozenset[str]
    mutations: int

    def check_scopes(self, caller: ApiCaller) -> None:
        """Raise Forbidden for the whole document when the caller's token lacks a scope that any part of it needs."""
        for scope in ALL_SCOPES:
            if scope in self.scopes - caller.scopes:
                raise lacking(scope)


class Refused(Exception):
    """The document is not executed; `errors` is what the caller is told."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = errors


class GraphQLApi:
    """Executes documents of one schema against the store."""

    def __init__(
        self, store: Store, schema: GraphQLSchema, services: ApiServices, reads: Lane | None = None, prepares: Lane | None = None
    ) -> None:
        """`reads`, `prepares`: shared by all APIs of a controller, so that together they leave threads to logins and channels."""
        self._store = store
        self._schema = schema
        self._services = services
        self._reads = reads or Lane(API_READS)
        self._prepares = prepares or Lane(API_PREPARES)
        self._documents = Documents(schema)

    async def prepared(self, query: str, variables: Mapping[str, Any] | None, operation_name: str | None) -> Operation:
        """Return what `prepare` returns, from a thread: a document at every limit takes tenths of a second."""
        return await self._prepares.run(lambda: asyncio.to_thread(self.prepare, query, variables, operation_name))

    def prepare(self, query: str, variables: Mapping[str, Any] | None, operation_name: str | None) -> Operation:
        """Return what the request asks for, ready to be executed; raises Refused."""
        try:
            document, errors = self._documents.get(query)
            if errors:
                raise Refused([documents.told(error) for error in errors])
            node = get_operation_ast(document, operation_name)
            if node is None:
                raise DocumentInvalid("the document holds several operations: give operationName, or it names none of them")
            given = dict(variables or {})
            cost = limits.check(self._schema, document, node, given)
        except GraphQLError as error:
            raise Refused([documents.told(error)]) from None
        except KlinketError as error:
            raise Refused([told(error)]) from None
        mutations = len(cost.root_fields) if node.operation is OperationType.MUTATION else 0
        return Operation(document, node, given, self._scopes(node, cost.root_fields), mutations)

    async def execute(self, operation: Operation, caller: ApiCaller, *, dry_run: bool = False) -> dict[str, Any]:
        """Return the response object: `data`, and `errors` where there are any. Raises TookTooLong.

        `dry_run`: nothing of a mutation stays, and `extensions.wouldCut` says which live flows it would have ended.
        """
        ends = time.monotonic() + deadline.MAX_SECONDS
        run = self._run(operation, caller, ends)
        if operation.mutations and dry_run:

            async def read(query: Callable[[Transaction], Foreseen]) -> Foreseen:
                return await self._reads.run(lambda: self._store.read(lambda tx: _in_time(ends, lambda: query(tx))))

            answer, foreseen = await would_cut(self._store, run, read, deadline.check)
            return {**answer, "extensions": {"wouldCut": foreseen_json(foreseen)}}
        if operation.mutations:
            return await self._store.write(run)
        return await self._reads.run(lambda: self._store.read(run))

    def _run(self, operation: Operation, caller: ApiCaller, ends: float) -> Callable[[Transaction], dict[str, Any]]:
        """`ends`: when nobody waits for the answer any more, on the monotonic clock."""

        def run(tx: Transaction) -> dict[str, Any]:
            context = RequestContext(tx, caller, self._services)
            result = _in_time(ends, lambda: with_room(lambda: self._executed(operation, context)))
            answer: dict[str, Any] = {"data": result.data}
            if result.errors:
                answer["errors"] = [_failure(error) for error in result.errors[:MAX_ERRORS]]
            return answer

        return run

    def _executed(self, operation: Operation, context: RequestContext) -> ExecutionResult:
        return execute_sync(
            self._schema,
            operation.document,
            context_value=context,
            variable_values=operation.variables,
            operation_name=operation.node.name.value if operation.node.name else None,
            executor_class=TimedExecutor,
            hide_suggestions=True,
        )

    def _scopes(self, node: OperationDefinitionNode, root_fields: tuple[str, ...]) -> frozenset[str]:
        """Return the scopes of all root fields; what GraphQL itself answers (`__schema`, `__typename`) takes reading."""
        root = self._schema.get_root_type(node.operation)
        assert root is not None  # the document is valid
        fields = (root.fields.get(name) for name in root_fields)
        return frozenset((scope_of(field.resolve) if field is not None else None) or READ for field in fields)


def _in_time(ends: float, work: Callable[[], _T]) -> _T:
    """Return the result of work that asks for the deadline; raises TookTooLong."""
    with deadline.until(min(ends, time.monotonic() + deadline.MAX_EXECUTE_SECONDS)):
        return work()


def told(error: KlinketError) -> dict[str, Any]:
    """Return an error of ours as an entry of `errors`."""
    return {"message": error.message, "extensions": {"code": error.code, "hint": error.hint}}


def foreseen_json(foreseen: Foreseen) -> dict[str, Any]:
    """Return what a change would cut as a JSON-ready value (docs/reference/admin-api.md)."""
    return {
        "flows": foreseen.flows,
        "cuts": [
            {
                "kind": cut.scope.split(" ")[0].upper(),
                "what": cut.words,
                "reason": cut.reason,
                "connectors": [{"connector": name, "flows": flows} for name, flows in cut.flows.items()],
            }
            for cut in foreseen.cuts
        ],
        "listed": [
            {
                "flow": row.flow,
                "session": row.session,
                "resourceId": None if row.resource_id is None else to_global_id("Resource", row.resource_id),
                "connectorId": to_global_id("Connector", row.connector_id),
                "host": row.event["resource"]["address"],
                "port": row.event["connection"]["resource_port"],
                "protocol": row.event["connection"]["protocol"],
            }
            for row in foreseen.listed
        ],
    }


def _failure(error: GraphQLError) -> dict[str, Any]:
    """Return what the caller is told: our own errors and GraphQL's in full, anything else only as "internal error"."""
    cause = error.original_error
    if cause is None or isinstance(cause, GraphQLError):
        return dict(documents.told(error))
    detail = dict(error.formatted)
    if isinstance(cause, KlinketError):
        detail["extensions"] = {"code": cause.code, "hint": cause.hint}
    else:
        logger.error("admin api: %s failed", error.path, exc_info=cause)
        detail["message"] = "internal error"
        detail["extensions"] = {"code": "internal"}
    return detail
