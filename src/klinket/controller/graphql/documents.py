"""Parsed and validated documents of one schema, kept by their text within a bound of memory."""

from __future__ import annotations

import threading
from collections import OrderedDict

from graphql import DocumentNode, GraphQLError, GraphQLSchema, parse, validate

from klinket.controller.graphql import limits, overlaps
from klinket.controller.graphql.limits import DocumentInvalid, DocumentTooLong, TooManyTokens

#: Documents kept.
CACHED_DOCUMENTS = 1_024
#: Bytes that the documents kept may take, estimated by their tokens and characters.
MAX_CACHED_BYTES = 32 * 1024 * 1024
#: What a token and a character take once parsed; measured up to 560 and 3, with room for the errors of a refused document.
_BYTES_PER_TOKEN, _BYTES_PER_CHAR = 1_000, 4
#: Errors reported of one document.
MAX_ERRORS = 20


class Documents:
    """The documents asked for last. Validation costs milliseconds; the same few documents come again and again.

    Threads may ask at the same time.
    """

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._kept: OrderedDict[str, tuple[DocumentNode, list[GraphQLError], int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def kept(self) -> tuple[int, int]:
        """Return how many documents are kept, and how many bytes that counts as."""
        return len(self._kept), self._bytes

    def get(self, text: str) -> tuple[DocumentNode, list[GraphQLError]]:
        """Return the document and what is wrong with it; raises GraphQLError or DocumentInvalid for what is none."""
        with self._lock:
            known = self._kept.get(text)
            if known is not None:
                self._kept.move_to_end(text)
                return known[0], known[1]
        document = _parsed(text)
        overlaps.check(document)
        errors = validate(self._schema, document, max_errors=MAX_ERRORS, hide_suggestions=True, allow_empty_selection_sets=False)
        with self._lock:
            self._keep(text, document, errors)
        return document, errors

    def _keep(self, text: str, document: DocumentNode, errors: list[GraphQLError]) -> None:
        size = len(text) * _BYTES_PER_CHAR + document.token_count * _BYTES_PER_TOKEN
        if text in self._kept:  # another thread was as quick
            return
        self._kept[text] = document, errors, size
        self._bytes += size
        while self._bytes > MAX_CACHED_BYTES or len(self._kept) > CACHED_DOCUMENTS:
            _, (_, _, freed) = self._kept.popitem(last=False)
            self._bytes -= freed


def told(error: GraphQLError) -> dict[str, object]:
    """Return what the caller is told of an error of GraphQL itself."""
    return {**error.formatted, "extensions": {**(error.extensions or {}), "code": DocumentInvalid.code}}


def _parsed(text: str) -> DocumentNode:
    if len(text) > limits.MAX_DOCUMENT_CHARS:
        raise DocumentTooLong(f"the document has {len(text)} characters, the limit is {limits.MAX_DOCUMENT_CHARS}")
    try:
        return parse(text, max_tokens=limits.MAX_TOKENS, allow_empty_selection_sets=False)
    except GraphQLError as error:
        if f"more than {limits.MAX_TOKENS} tokens" in error.message:  # it has no class of its own
            raise TooManyTokens(f"the document has more than {limits.MAX_TOKENS} tokens, the limit") from None
        raise
