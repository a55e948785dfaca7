"""The nouns of the Admin API: how an object of each is found by name or id, and how tab completion lists them."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import click

from klinket.cli.admin.api import PAGE_NODES, AdminApiClient, Missing
from klinket.domain.errors import Conflict

#: Seconds that tab completion waits for the controller: whoever presses Tab is not kept waiting.
COMPLETION_SECONDS = 2.0

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Noun:
    """`kind`: for people; `command`: of `klinket admin`; `single`, `many`: fields of Query.

    `type_name`: in ids. `label`: the field people name an object by. `filter_type`: input type of the filter of `many`, "" where
    there is none. `extension`: whether it is klinket's own schema that has it.
    """

    kind: str
    command: str
    type_name: str
    single: str
    many: str
    filter_type: str
    label: str = "name"
    extension: bool = False

    def rows(self, api: AdminApiClient, selection: str, **condition: str) -> Iterator[dict[str, Any]]:
        """Yield all objects, or those whose label meets a condition as {eq: ...} of the API."""
        api = api.extension if self.extension else api
        if not condition or not self.filter_type:
            return api.nodes(self.many, selection)
        return api.nodes(self.many, selection, filter=(self.filter_type, {self.label: condition}))

    def find(self, api: AdminApiClient, wanted: str, selection: str = "id name") -> dict[str, Any]:
        """Return the object with this name or id; raises Missing, or Conflict when several have the name."""
        if self.is_id(wanted) and self.single:
            asked = api.extension if self.extension else api
            document = f"query($id: ID!) {{ {self.single}(id: $id) {{ {selection} }} }}"
            node: dict[str, Any] | None = asked.execute(document, id=wanted)[self.single]
            if node is not None:
                return node
        return pick(self.rows(api, selection, eq=wanted), self, wanted)

    def is_id(self, text: str) -> bool:
        """Return whether a text has the form of an id of this type."""
        try:
            return base64.b64decode(text, validate=True).startswith(f"{self.type_name}:".encode())
        except (binascii.Error, ValueError):
            return False

    def number(self, node: dict[str, Any]) -> int:
        """Return the number in an object's id, as cuts have it."""
        return int(base64.b64decode(node["id"]).partition(b":")[2])

    def argument(self, name: str = "name", **settings: Any) -> Callable[[_F], _F]:
        """Return a click argument that names such an object, with tab completion."""
        return click.argument(name, shell_complete=self.complete, **settings)

    def option(self, *names: str, **settings: Any) -> Callable[[_F], _F]:
        """Return a click option that names such an object, with tab completion."""
        return click.option(*names, shell_complete=self.complete, **settings)

    def complete(self, ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        """Return the names that begin so, at most a page of them; none when anything is in the way."""
        try:
            api = completing(ctx)
            found = islice(self.rows(api, f"id {self.label}", startsWith=incomplete), PAGE_NODES)
            return [node[self.label] for node in found if str(node[self.label] or "").startswith(incomplete)]
        except Exception:  # a prompt is no place for errors
            return []


def completing(ctx: click.Context) -> AdminApiClient:
    """Return the client for tab completion: the options and variables of `klinket admin`, and little patience."""
    given: dict[str, Any] = {}
    parent: click.Context | None = ctx
    while parent is not None:
        given = {**parent.params, **given}
        parent = parent.parent
    url = given.get("url") or os.environ["KLINKET_URL"]
    authority = given.get("ca") or os.environ.get("KLINKET_CA")
    return AdminApiClient(url, os.environ["KLINKET_API_TOKEN"], authority, timeout=COMPLETION_SECONDS)


def pick(rows: Iterable[dict[str, Any]], noun: Noun, wanted: str) -> dict[str, Any]:
    """Return the one row whose id or label is `wanted`; raises Missing, or Conflict when several have the name."""
    named = []
    for row in rows:
        if row["id"] == wanted:
            return row
        if row[noun.label] == wanted:
            named.append(row)
    if not named:
        raise Missing(
            f"{noun.kind} {wanted!r} does not exist",
            hint=f"see what there is, with names and ids: klinket admin {noun.command} list",
        )
    if len(named) > 1:
        ids = ", ".join(f"{row['id']} ({row['status']})" if "status" in row else row["id"] for row in named)
        raise Conflict(f"several have the name {wanted!r}: {ids}", hint="give the id instead of the name")
    return named[0]


NETWORK = Noun("Remote network", "network", "RemoteNetwork", "remoteNetwork", "remoteNetworks", "RemoteNetworkFilterInput")
CONNECTOR = Noun("Connector", "connector", "Connector", "connector", "connectors", "ConnectorFilterInput")
RESOURCE = Noun("Resource", "resource", "Resource", "resource", "resources", "ResourceFilterInput")
GROUP = Noun("Group", "group", "Group", "group", "groups", "GroupFilterInput")
USER = Noun("User", "user", "User", "user", "users", "UserFilterInput", label="email")
POLICY = Noun("Security policy", "policy", "SecurityPolicy", "securityPolicy", "securityPolicies", "SecurityPolicyFilterField")
SERVICE = Noun("Service account", "service", "ServiceAccount", "serviceAccount", "serviceAccounts", "ServiceAccountFilterInput")
KEY = Noun("Service key", "service key", "ServiceAccountKey", "", "", "")
DEVICE = Noun("Device", "device", "Device", "device", "devices", "DeviceFilterInput")
TOKEN = Noun("API token", "token", "ApiToken", "apiToken", "apiTokens", "", extension=True)
RELAY = Noun("Relay", "relay", "Relay", "relay", "relays", "", extension=True)
SINK = Noun("Sink", "sink", "Sink", "sink", "sinks", "", extension=True)
