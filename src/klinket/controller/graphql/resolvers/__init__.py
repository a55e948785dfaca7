"""One file a noun; each gives FIELDS, a plain table from "Type.field" to the function that resolves it."""

from __future__ import annotations

from klinket.controller.app.rows import GroupRow, ResourceRow, ServiceAccountRow

#: The GraphQL type of a row, where an interface or union asks for it.
TYPE_NAMES: dict[type, str] = {ResourceRow: "NetworkResource", ServiceAccountRow: "ServiceAccount", GroupRow: "Group"}
