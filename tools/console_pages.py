"""The console's pages as paths, filled with ids of what a database holds: for whatever opens all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from klinket.controller.app.ports import Repository, Transaction
from klinket.controller.console.route import ConsoleRoute
from klinket.controller.console.routes import PAGES

#: Pages that stream, or are files.
STREAMS = {"/events", "/activity/flows/export", "/activity/audit/export", "/activity/cuts/{id:int}/receipt"}
#: What texts in paths are filled with, by the word before them.
TEXTS = {"names": "service", "sinks/new": "smtp", "authorities": "web"}


def ids_of(tx: Transaction) -> dict[str, int]:
    """Return an id for each kind of object, by the word before it in a path. The console's example has all of them."""
    tables: dict[str, Repository[Any]] = {
        "remote-networks": tx.remote_networks,
        "connectors": tx.connectors,
        "resources": tx.resources,
        "services": tx.service_accounts,
        "users": tx.users,
        "policies": tx.security_policies,
        "api-tokens": tx.api_tokens,
        "relays": tx.relays,
        "sinks": tx.sinks,
    }
    found = {word: rows[0].id for word, table in tables.items() if (rows := table.newest(1))}
    service = tx.service_keys.newest(1)[0]
    found |= {word: table.all()[0].id for word, table in tables.items() if word in ("services", "resources") and len(table.all())}
    keys = tx.service_keys.find(service_account_id=found.get("services", service.service_account_id), revoked_at_ms=None)
    return found | {
        "keys": (keys or [service])[0].id,
        "groups": tx.groups.find(group_type="MANUAL")[0].id,
        "flows": tx.flow_events.newest(1, kind="denied")[0].id,
        "cuts": tx.cuts.newest(1)[0].id,
        "audit": next(row.number for row in tx.audit.newest(500, order="number") if "before" in row.detail),
    }


def path_of(route: ConsoleRoute, ids: Mapping[str, int]) -> str:
    """Return the path of a page: each number in it is of what the word before it names."""
    parts: list[str] = []
    for part in route.path.split("/"):
        named = re.fullmatch(r"{(\w+)(:\w+)?}", part)
        if named is None:
            parts.append(part)
        elif named.group(2) == ":int":
            parts.append(str(ids.get(parts[-1], 1)))
        else:
            parts.append(TEXTS.get("/".join(parts[-2:]), TEXTS.get(parts[-1], "x")))
    return "/".join(parts)


def pages(ids: Mapping[str, int]) -> list[str]:
    """Return the paths of all pages but STREAMS, below the console's root."""
    return [path_of(route, ids) for route in PAGES if route.method == "GET" and route.path not in STREAMS]
