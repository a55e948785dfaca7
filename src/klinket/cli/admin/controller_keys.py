"""The controller's keys of the audit, with which exports and receipts are proved: from a file, or asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from klinket.cli.admin.api import AdminApiClient
from klinket.domain.errors import InvalidInput, InvalidToken
from klinket.wire.paths import JWKS_PATH


def auditors_keys(ctx: click.Context, path: Path | None) -> Any:
    """Return the key set of a jwks.json, or of the controller at KLINKET_URL; raises InvalidInput("keys")."""
    from klinket.wire.audit_signature import audit_keys

    settings = ctx.find_object(dict) or {}
    if path is None:
        if not settings.get("url"):
            raise InvalidInput("keys", "with which keys?", hint="give --keys jwks.json, or set KLINKET_URL to ask the controller")
        document = AdminApiClient(settings["url"], "", settings.get("ca")).get(JWKS_PATH)
    else:
        try:
            document = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InvalidInput("keys", f"{path} is not JSON", hint=f"fetch it from the controller: {JWKS_PATH}") from error
    try:
        return audit_keys(document if isinstance(document, dict) else {})
    except InvalidToken as error:
        raise InvalidInput("keys", error.message, hint=f"fetch them from the controller: {JWKS_PATH}") from error
