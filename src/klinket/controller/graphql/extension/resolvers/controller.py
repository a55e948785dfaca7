"""The controller itself."""

from __future__ import annotations

from typing import Any

from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.mutation import query
from klinket.wire.version import PRODUCT_VERSION


@query
def _controller(context: RequestContext) -> dict[str, Any]:
    epoch, revision = context.tx.head()
    return {
        "network": context.services.facts.network,
        "version": PRODUCT_VERSION,
        "epoch": str(epoch),
        "revision": revision,
        "time": context.tx.now_ms,
    }


FIELDS = {"Query.controller": _controller}
