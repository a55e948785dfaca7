"""A client that behaves as Terraform and its provider do (facts §7): it keeps a state, refreshes it, plans by comparing, applies.

Written from the facts, not from anybody's code. After each create and update the object is read back and must be what was
planned; a read that finds null means the object is gone; an entry of `errors` ends the run.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx2

Attributes = dict[str, Any]
#: Nodes of one page, as the provider asks for them.
PAGE = 50
RETRIES = 10


class ApplyFailed(Exception):
    """The provider says so and stops: an error text, or a result that differs from the plan."""


class Api:
    """The provider's side of HTTP."""

    def __init__(self, http: httpx2.AsyncClient, token: str) -> None:
        self._http = http
        self._token = token
        self._run = str(uuid.uuid4())

    async def configure(self) -> None:
        """Look for a redirect on the base URL first; anything else means "stay"."""
        answer = await self._http.get("/", headers=self._headers(), follow_redirects=True)
        assert answer.status_code < 500

    def _headers(self) -> dict[str, str]:
        return {
            "x-api-key": self._token,
            "User-Agent": "TwingateTF/4.0.0",
            "X-Correlation-Id": self._run,
            "X-Twingate-Request-Id": str(uuid.uuid4()),
        }

    async def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        """Return the answer; 429 and 5xx are asked again."""
        for _ in range(RETRIES):
            answer = await self._http.post(path, json=body, headers={**self._headers(), **headers})
            if answer.status_code != 429 and answer.status_code < 500:
                break
        return answer

    async def query(self, document: str, **variables: Any) -> dict[str, Any]:
        """Return the data; raises ApplyFailed for any `errors`."""
        answer = await self.post("/api/graphql/", {"query": document, "variables": variables})
        if answer.status_code != 200 or answer.json().get("errors"):
            raise ApplyFailed(answer.text)
        return dict(answer.json()["data"])

    async def mutate(self, document: str, **variables: Any) -> dict[str, Any]:
        """Return the payload of the one mutation; raises ApplyFailed for ok=false, and for a payload that says both."""
        (payload,) = (await self.query(document, **variables)).values()
        if not payload["ok"] or payload["error"] is not None:
            raise ApplyFailed(payload["error"])
        return dict(payload)

    async def pages(self, field: str, variables: str, selection: str, **values: Any) -> list[dict[str, Any]]:
        """Return the nodes of a list query, page after page; the first cursor is an empty text."""
        nodes: list[dict[str, Any]] = []
        after = ""
        names = "".join(f",{part.split(':')[0][1:]}:{part.split(':')[0]}" for part in variables.split(",") if part)
        document = (
            f"query($after:String,$first:Int{',' + variables if variables else ''})"
            f"{{{field}(after:$after,first:$first{names}){{pageInfo{{endCursor hasNextPage}}edges{{node{{{selection}}}}}}}}}"
        )
        while True:
            page = (await self.query(document, after=after, first=PAGE, **values))[field]
            nodes += [edge["node"] for edge in page["edges"]]
            if not page["pageInfo"]["hasNextPage"]:
                return nodes
            after = page["pageInfo"]["endCursor"]


class Kind:
    """A type of object in the provider. `fixed`: attributes whose change replaces the object; `secret`: never read back."""

    fixed: ClassVar[tuple[str, ...]] = ()
    secret: ClassVar[tuple[str, ...]] = ()

    def __init__(self, api: Api) -> None:
        self.api = api

    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        """Return the id, and attributes that only creation tells."""
        raise NotImplementedError

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        """Return the attributes as they are now; None: the object is gone."""
        raise NotImplementedError

    async def update(self, id: str, before: Attributes, planned: Attributes) -> None:
        raise NotImplementedError

    async def delete(self, id: str, known: Attributes) -> None:
        raise NotImplementedError


@dataclass
class Held:
    """An object in the state."""

    kind: str
    id: str
    attributes: Attributes


@dataclass
class Terraform:
    """`kinds`: by name; `state`: by address. What is configured is (kind, attributes) by address, in order of dependence."""

    kinds: dict[str, Kind]
    state: dict[str, Held] = field(default_factory=dict)

    async def refresh(self) -> list[str]:
        """Read everything anew; returns the addresses of what is not as it was left (drift), the gone included."""
        drifted = []
        for address, held in list(self.state.items()):
            found = await self.kinds[held.kind].read(held.id, held.attributes)
            if found is None:
                del self.state[address]
                drifted.append(address)
            elif self._seen(held.kind, found) != self._seen(held.kind, held.attributes):
                held.attributes = {**held.attributes, **found}
                drifted.append(address)
        return drifted

    def _seen(self, kind: str, attributes: Attributes) -> Attributes:
        return {name: value for name, value in attributes.items() if name not in self.kinds[kind].secret}

    def plan(self, configured: dict[str, tuple[str, Attributes]]) -> dict[str, str]:
        """Return create, update, replace or delete by address; nothing for what is as it should be."""
        actions = {address: "delete" for address in reversed(self.state) if address not in configured}
        for address, (kind, wanted) in configured.items():
            held = self.state.get(address)
            if held is None:
                actions[address] = "create"
                continue
            changed = {name for name, value in wanted.items() if held.attributes.get(name) != value}
            if changed:
                actions[address] = "replace" if changed & set(self.kinds[kind].fixed) else "update"
        return actions

    async def apply(self, configured: dict[str, tuple[str, Attributes]]) -> dict[str, str]:
        """Refresh, plan, carry out; returns the plan. Raises ApplyFailed, also when a result is not what was planned."""
        await self.refresh()
        actions = self.plan(configured)
        for address, action in actions.items():
            if action in ("delete", "replace"):
                held = self.state.pop(address)
                await self.kinds[held.kind].delete(held.id, held.attributes)
            if action in ("create", "replace"):
                kind, wanted = configured[address]
                id, told = await self.kinds[kind].create(wanted)
                self.state[address] = Held(kind, id, {**wanted, **told})
            elif action == "update":
                kind, wanted = configured[address]
                held = self.state[address]
                await self.kinds[kind].update(held.id, held.attributes, wanted)
                held.attributes = {**held.attributes, **wanted}
            if action != "delete":
                await self._check(address)
        return actions

    async def _check(self, address: str) -> None:
        held = self.state[address]
        found = await self.kinds[held.kind].read(held.id, held.attributes)
        if found is None or self._seen(held.kind, {**held.attributes, **found}) != self._seen(held.kind, held.attributes):
            raise ApplyFailed(f"{address}: planned {held.attributes}, got {found}: inconsistent result after apply")

    async def destroy(self) -> None:
        """Delete everything, the last first."""
        await self.apply({})
