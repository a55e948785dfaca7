"""A resource with its access, as Terraform's provider manages them: two requests, removal of access before addition."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.unit.controller.graphql.terraform import Attributes, Kind

_FIELDS = (
    "id name address{type value}alias remoteNetwork{id}isActive isVisible isBrowserShortcutEnabled "
    "protocols{allowIcmp tcp{policy ports{start end}}udp{policy ports{start end}}}securityPolicy{id}tags{key value}"
    "approvalMode accessPolicy{mode durationSeconds}usageBasedAutolockDurationDays"
)
_ACCESS = (
    "access(after:$after,first:$first){pageInfo{endCursor hasNextPage}edges{node{__typename ...on Group{id}"
    "...on ServiceAccount{id}}securityPolicy{id}"
    "expiresAt usageBasedAutolockDurationDays approvalMode accessPolicy{mode durationSeconds}}}"
)
_READ = (
    f"query($id:ID!$after:String$first:Int){{resource(id:$id){{__typename {_FIELDS} ...on NetworkResource{{routingMode}}"
    "...on KubernetesResource{gateway{id}}...on WebAppResource{gateway{id}downstream{port}upstream{port}"
    f"requestHeaderRewrites{{key value}}}}{_ACCESS}}}}}"
)
_PAYLOAD = f"ok error entity{{{_FIELDS} routingMode}}"
_DECLARED = (
    "$protocols:ProtocolsInput$isVisible:Boolean$isBrowserShortcutEnabled:Boolean$alias:String$securityPolicyId:ID"
    "$routingMode:RoutingMode$tags:[TagInput!]$approvalMode:AccessApprovalMode$accessPolicy:AccessPolicyInput"
)
_PASSED = (
    "protocols:$protocols,isVisible:$isVisible,isBrowserShortcutEnabled:$isBrowserShortcutEnabled,alias:$alias,"
    "securityPolicyId:$securityPolicyId,routingMode:$routingMode,tags:$tags,approvalMode:$approvalMode,accessPolicy:$accessPolicy"
)
#: Attributes, which are names of the API as well; `access` is apart.
COLUMNS = (
    "name", "address", "remoteNetworkId", "protocols", "isVisible", "isBrowserShortcutEnabled", "alias", "securityPolicyId",
    "routingMode", "tags", "approvalMode", "accessPolicy",
)  # fmt: skip


def access(principal: str, **settings: Any) -> dict[str, Any]:
    """Return an edge as it is configured; what is not given is null."""
    return {
        "principalId": principal,
        "securityPolicyId": None,
        "expiresAt": None,
        "approvalMode": None,
        "accessPolicy": None,
        **settings,
    }


class Resource(Kind):
    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        payload = await self.api.mutate(
            f"mutation($name:String!$address:String!$remoteNetworkId:ID!{_DECLARED})"
            f"{{resourceCreate(name:$name,address:$address,remoteNetworkId:$remoteNetworkId,{_PASSED}){{{_PAYLOAD}}}}}",
            **{name: planned[name] for name in COLUMNS},
        )
        id = payload["entity"]["id"]
        if not planned["isActive"]:
            await self.update(id, {**planned, "access": []}, {**planned, "access": []})
        await self._add(id, planned["access"])
        return id, {}

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        edges: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            found = (await self.api.query(_READ, id=id, after=after, first=50))["resource"]
            if found is None:
                return None
            edges += found["access"]["edges"]
            after = found["access"]["pageInfo"]["endCursor"]
            if not found["access"]["pageInfo"]["hasNextPage"]:
                break
        assert found["__typename"] == "NetworkResource"
        return {
            **{name: found[name] for name in COLUMNS if name in found},
            "address": found["address"]["value"],
            "remoteNetworkId": found["remoteNetwork"]["id"],
            "securityPolicyId": found["securityPolicy"] and found["securityPolicy"]["id"],
            "isActive": found["isActive"],
            "access": sorted((_edge(one) for one in edges), key=lambda one: str(one["principalId"])),
        }

    async def update(self, id: str, before: Attributes, planned: Attributes) -> None:
        gone = [one["principalId"] for one in before["access"] if one not in planned["access"]]
        if gone:
            await self.api.mutate(
                "mutation($id:ID!$gone:[ID!]!){resourceAccessRemove(resourceId:$id,principalIds:$gone){ok error entity{id}}}",
                id=id,
                gone=gone,
            )
        await self._add(id, [one for one in planned["access"] if one not in before["access"]])
        await self.api.mutate(
            f"mutation($id:ID!$name:String$address:String$remoteNetworkId:ID$isActive:Boolean{_DECLARED})"
            "{resourceUpdate(id:$id,name:$name,address:$address,remoteNetworkId:$remoteNetworkId,isActive:$isActive,"
            f"{_PASSED}){{{_PAYLOAD}}}}}",
            id=id,
            isActive=planned["isActive"],
            **{name: planned[name] for name in COLUMNS},
        )

    async def _add(self, id: str, edges: list[dict[str, Any]]) -> None:
        if edges:
            await self.api.mutate(
                "mutation($id:ID!$access:[AccessInput!]!){resourceAccessAdd(resourceId:$id,access:$access){ok error entity{id}}}",
                id=id,
                access=edges,
            )

    async def delete(self, id: str, known: Attributes) -> None:
        await self.api.mutate("mutation($id:ID!){resourceDelete(id:$id){ok,error}}", id=id)


def _edge(edge: dict[str, Any]) -> dict[str, Any]:
    assert edge["node"]["__typename"] in ("Group", "ServiceAccount")
    expires = edge["expiresAt"]
    return access(
        edge["node"]["id"],
        securityPolicyId=edge["securityPolicy"] and edge["securityPolicy"]["id"],
        # Terraform compares times as times, so it writes them in one way.
        expiresAt=expires and datetime.fromisoformat(expires).strftime("%Y-%m-%dT%H:%M:%SZ"),
        approvalMode=edge["approvalMode"],
        accessPolicy=edge["accessPolicy"],
    )
