"""The types of objects that Terraform's provider manages, each with the requests it makes for them (facts §7)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.unit.controller.graphql.terraform import Api, ApplyFailed, Attributes, Kind


class RemoteNetwork(Kind):
    fixed = ("type",)

    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        payload = await self.api.mutate(
            "mutation($name:String!$location:RemoteNetworkLocation!$isActive:Boolean$type:RemoteNetworkType!)"
            "{remoteNetworkCreate(name:$name,location:$location,isActive:$isActive,networkType:$type)"
            "{ok,error,entity{id,name,location,networkType}}}",
            **planned,
            isActive=True,
        )
        return payload["entity"]["id"], {}

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        document = "query($id:ID!){remoteNetwork(id:$id){id name location networkType}}"
        found = (await self.api.query(document, id=id))["remoteNetwork"]
        return found and {"name": found["name"], "location": found["location"], "type": found["networkType"]}

    async def update(self, id: str, before: Attributes, planned: Attributes) -> None:
        await self.api.mutate(
            "mutation($id:ID!$name:String$location:RemoteNetworkLocation)"
            "{remoteNetworkUpdate(id:$id,name:$name,location:$location){ok,error,entity{id}}}",
            id=id,
            name=planned["name"],
            location=planned["location"],
        )

    async def delete(self, id: str, known: Attributes) -> None:
        await self.api.mutate("mutation($id:ID!){remoteNetworkDelete(id:$id){ok,error}}", id=id)


class Connector(Kind):
    fixed = ("network",)
    _seen = "entity{id name remoteNetwork{id}hasStatusNotificationsEnabled state hostname version publicIP privateIPs}"

    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        payload = await self.api.mutate(
            "mutation($network:ID!$name:String$notify:Boolean)"
            "{connectorCreate(remoteNetworkId:$network,name:$name,hasStatusNotificationsEnabled:$notify)"
            f"{{ok error {self._seen}}}}}",
            network=planned["network"],
            name=planned.get("name"),
            notify=planned["notify"],
        )
        return payload["entity"]["id"], {"name": payload["entity"]["name"]}

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        document = "query($id:ID!){connector(id:$id){id name remoteNetwork{id name}hasStatusNotificationsEnabled state}}"
        found = (await self.api.query(document, id=id))["connector"]
        return found and {
            "name": found["name"],
            "network": found["remoteNetwork"]["id"],
            "notify": found["hasStatusNotificationsEnabled"],
        }

    async def update(self, id: str, before: Attributes, planned: Attributes) -> None:
        name = planned.get("name")
        await self.api.mutate(
            "mutation($id:ID!$name:String$notify:Boolean)"
            f"{{connectorUpdate(id:$id,name:$name,hasStatusNotificationsEnabled:$notify){{ok error {self._seen}}}}}",
            id=id,
            name=None if name == before["name"] else name,
            notify=None if planned["notify"] == before["notify"] else planned["notify"],
        )

    async def delete(self, id: str, known: Attributes) -> None:
        await self.api.mutate("mutation($id:ID!){connectorDelete(id:$id){ok,error}}", id=id)


class ConnectorTokens(Kind):
    """Its id is the connector's; it is valid or gone, and asked over REST."""

    fixed = ("connector",)
    secret = ("access", "refresh")

    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        document = (
            "mutation($id:ID!){connectorGenerateTokens(connectorId:$id){ok error connectorTokens{accessToken refreshToken}}}"
        )
        tokens = (await self.api.mutate(document, id=planned["connector"]))["connectorTokens"]
        return planned["connector"], {"access": tokens["accessToken"], "refresh": tokens["refreshToken"]}

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        bearer = f"Bearer {known['access']}"
        body = {"refresh_token": known["refresh"]}
        answer = await self.api.post("/api/v4/connector/validate_tokens", body, Authorization=bearer)
        return {"connector": id} if answer.status_code == 200 else None

    async def delete(self, id: str, known: Attributes) -> None:
        """Make the pair invalid: new tokens, which nobody keeps."""
        await self.create({"connector": id})


class Group(Kind):
    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        payload = await self.api.mutate(
            "mutation($name:String!$users:[ID]$policy:ID)"
            "{groupCreate(name:$name,userIds:$users,securityPolicyId:$policy){ok error entity{id}}}",
            name=planned["name"],
            users=planned["users"],
            policy=planned["policy"],
        )
        return payload["entity"]["id"], {}

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        document = (
            "query($id:ID!$after:String$first:Int){group(id:$id){id name type isActive securityPolicy{id}"
            "users(after:$after,first:$first){pageInfo{endCursor hasNextPage}edges{node{id}}}}}"
        )
        users: list[str] = []
        after = None
        while True:
            found = (await self.api.query(document, id=id, after=after, first=50))["group"]
            if found is None:
                return None
            users += [edge["node"]["id"] for edge in found["users"]["edges"]]
            after = found["users"]["pageInfo"]["endCursor"]
            if not found["users"]["pageInfo"]["hasNextPage"]:
                policy = found["securityPolicy"]
                return {"name": found["name"], "users": users, "policy": policy and policy["id"]}

    async def update(self, id: str, before: Attributes, planned: Attributes) -> None:
        await self.api.mutate(
            "mutation($id:ID!$name:String$add:[ID!]$remove:[ID!]$policy:ID)"
            "{groupUpdate(id:$id,name:$name,addedUserIds:$add,removedUserIds:$remove,securityPolicyId:$policy)"
            "{ok error entity{id}}}",
            id=id,
            name=planned["name"],
            add=[one for one in planned["users"] if one not in before["users"]],
            remove=[one for one in before["users"] if one not in planned["users"]],
            policy=planned["policy"],
        )

    async def delete(self, id: str, known: Attributes) -> None:
        await self.api.mutate("mutation($id:ID!){groupDelete(id:$id){ok,error}}", id=id)


class User(Kind):
    fixed = ("email",)

    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        payload = await self.api.mutate(
            "mutation($email:String!$first:String$last:String$role:UserRole!$invite:Boolean)"
            "{userCreate(email:$email,firstName:$first,lastName:$last,role:$role,shouldSendInvite:$invite){ok error entity{id}}}",
            **planned,
            invite=False,
        )
        return payload["entity"]["id"], {}

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        found = (await self.api.query("query($id:ID!){user(id:$id){id firstName lastName email role state type}}", id=id))["user"]
        return found and {
            "email": found["email"],
            "first": found["firstName"],
            "last": found["lastName"],
            "role": found["role"],
        }

    async def update(self, id: str, before: Attributes, planned: Attributes) -> None:
        if (planned["first"], planned["last"]) != (before["first"], before["last"]):
            await self.api.mutate(
                "mutation($id:ID!$first:String$last:String$state:UserStateUpdateInput)"
                "{userDetailsUpdate(id:$id,firstName:$first,lastName:$last,state:$state){ok error entity{id}}}",
                id=id,
                first=None if planned["first"] == before["first"] else planned["first"],
                last=None if planned["last"] == before["last"] else planned["last"],
                state=None,
            )
        if planned["role"] != before["role"]:
            document = "mutation($id:ID!$role:UserRole!){userRoleUpdate(id:$id,role:$role){ok error entity{id}}}"
            await self.api.mutate(document, id=id, role=planned["role"])

    async def delete(self, id: str, known: Attributes) -> None:
        await self.api.mutate("mutation($id:ID!){userDelete(id:$id){ok,error}}", id=id)


class PolicyGroups(Kind):
    """Which groups have a security policy. The policy itself is there already, and stays."""

    fixed = ("policy",)

    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        await self.update(planned["policy"], {}, planned)
        return planned["policy"], {}

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        document = "query($id:ID$name:String){securityPolicy(id:$id,name:$name){id name groups{edges{node{id}}}}}"
        found = (await self.api.query(document, id=id, name=None))["securityPolicy"]
        return found and {"policy": found["id"], "groups": [edge["node"]["id"] for edge in found["groups"]["edges"]]}

    async def update(self, id: str, before: Attributes, planned: Attributes) -> None:
        document = "mutation($id:ID!$groups:[ID!]){securityPolicyUpdate(id:$id,groupIds:$groups){ok error entity{id}}}"
        await self.api.mutate(document, id=id, groups=planned["groups"])

    async def delete(self, id: str, known: Attributes) -> None:
        await self.update(id, known, {"groups": []})


class ServiceAccount(Kind):
    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        document = "mutation($name:String!){serviceAccountCreate(name:$name){ok error entity{id name}}}"
        return (await self.api.mutate(document, name=planned["name"]))["entity"]["id"], {}

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        document = (
            "query($id:ID!$after:String$first:Int){serviceAccount(id:$id){id name resources(after:$after,first:$first)"
            "{pageInfo{endCursor hasNextPage}edges{node{id isActive}}}keys(after:$after,first:$first)"
            "{pageInfo{endCursor hasNextPage}edges{node{id status}}}}}"
        )
        found = (await self.api.query(document, id=id, after=None, first=50))["serviceAccount"]
        return found and {"name": found["name"]}

    async def update(self, id: str, before: Attributes, planned: Attributes) -> None:
        await self.api.mutate(
            "mutation($id:ID!$name:String$add:[ID])"
            "{serviceAccountUpdate(id:$id,name:$name,addedResourceIds:$add){ok error entity{id}}}",
            id=id,
            name=planned["name"],
            add=[],
        )

    async def delete(self, id: str, known: Attributes) -> None:
        await self.api.mutate("mutation($id:ID!){serviceAccountDelete(id:$id){ok,error}}", id=id)


class ServiceKey(Kind):
    fixed = ("account", "days")
    secret = ("token",)
    _key = "id name expiresAt revokedAt status createdAt updatedAt serviceAccount{id name}"

    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        payload = await self.api.mutate(
            "mutation($days:Int!$account:ID!$name:String)"
            "{serviceAccountKeyCreate(expirationTime:$days,serviceAccountId:$account,name:$name)"
            f"{{ok error token entity{{{self._key}}}}}}}",
            days=planned["days"],
            account=planned["account"],
            name=planned.get("name"),
        )
        return payload["entity"]["id"], {"token": payload["token"], "name": payload["entity"]["name"], "active": True}

    async def _found(self, id: str) -> Any:
        return (await self.api.query(f"query($id:ID!){{serviceAccountKey(id:$id){{{self._key}}}}}", id=id))["serviceAccountKey"]

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        found = await self._found(id)
        if found is None:
            return None
        return {
            "name": found["name"],
            "account": found["serviceAccount"]["id"],
            "days": _days(found["createdAt"], found["expiresAt"]),
            "active": found["status"] == "ACTIVE",
        }

    async def update(self, id: str, before: Attributes, planned: Attributes) -> None:
        document = "mutation($id:ID!$name:String!){serviceAccountKeyUpdate(id:$id,name:$name){ok error entity{id name}}}"
        await self.api.mutate(document, id=id, name=planned["name"])

    async def delete(self, id: str, known: Attributes) -> None:
        found = await self._found(id)
        if found is not None and found["status"] == "ACTIVE":
            await self.api.mutate("mutation($id:ID!){serviceAccountKeyRevoke(id:$id){ok error entity{id status}}}", id=id)
        await self.api.mutate("mutation($id:ID!){serviceAccountKeyDelete(id:$id){ok,error}}", id=id)


def _days(created: str, expires: str | None) -> int:
    """Return whole days of RFC 3339 times; a time without an offset would not compare."""
    if not expires:
        return 0
    return round((datetime.fromisoformat(expires) - datetime.fromisoformat(created)).total_seconds() / 86_400)


class DeviceTrust(Kind):
    """A device is found by its serial number; it is not made here."""

    fixed = ("serial",)

    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        nodes = await self.api.pages(
            "devices",
            "$filter:DeviceFilterInput",
            "id serialNumber",
            filter={"name": None, "serialNumber": {"eq": planned["serial"], "in": None, "regexp": None}},
        )
        if len(nodes) != 1:
            raise ApplyFailed(f"{len(nodes)} devices")
        await self.update(nodes[0]["id"], {}, planned)
        return nodes[0]["id"], {}

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        found = (await self.api.query("query($id:ID!){device(id:$id){id isTrusted serialNumber activeState}}", id=id))["device"]
        return found and {"serial": found["serialNumber"], "trusted": found["isTrusted"]}

    async def update(self, id: str, before: Attributes, planned: Attributes) -> None:
        document = "mutation($id:ID!$trusted:Boolean!){deviceUpdate(id:$id,isTrusted:$trusted){ok error entity{id isTrusted}}}"
        await self.api.mutate(document, id=id, trusted=planned["trusted"])

    async def delete(self, id: str, known: Attributes) -> None:
        await self.update(id, known, {"trusted": False})


class SerialNumber(Kind):
    fixed = ("number",)

    async def create(self, planned: Attributes) -> tuple[str, Attributes]:
        document = "mutation($n:[String!]!){serialNumbersCreate(serialNumbers:$n){ok error entities{id serialNumber}}}"
        return (await self.api.mutate(document, n=[planned["number"]]))["entities"][0]["id"], {}

    async def read(self, id: str, known: Attributes) -> Attributes | None:
        nodes = await self.api.pages("serialNumbers", "", "id createdAt serialNumber matchedDevices{id}")
        return next(({"number": node["serialNumber"]} for node in nodes if node["id"] == id), None)

    async def delete(self, id: str, known: Attributes) -> None:
        document = "mutation($n:[String!]!){serialNumbersDelete(serialNumbers:$n){ok error}}"
        await self.api.mutate(document, n=[known["number"]])


def kinds(api: Api) -> dict[str, Kind]:
    """Return all types by name; a resource with its access has a module of its own."""
    from tests.unit.controller.graphql.terraform_resource import Resource

    made = (
        RemoteNetwork, Connector, ConnectorTokens, Resource, Group, User, PolicyGroups, ServiceAccount, ServiceKey, DeviceTrust,
        SerialNumber,
    )  # fmt: skip
    return {kind.__name__: kind(api) for kind in made}
