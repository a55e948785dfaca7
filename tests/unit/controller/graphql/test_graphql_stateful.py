"""Accounts, keys, resources, access, groups and the clock, driven through the API beside a small model: they never differ.

After every step everything is read and compared. KLINKET_TEST_SCALE=10 drives ten times as long.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from klinket.controller.app import groups, security_policies
from klinket.controller.expiries import end_expired
from klinket.controller.graphql.global_id import to_global_id
from klinket.domain.audit import SYSTEM
from klinket.domain.names import MAX_NAME_CHARS
from tests.unit.controller.graphql import api_model as model
from tests.unit.controller.graphql.api_model import ABSENT, DAY, HOUR, MISSING, Edge, Group, Key, Model, Resource, Sets
from tests.unit.controller.running import Running

SCALE = int(os.environ.get("KLINKET_TEST_SCALE", "1"))
RUNS, STEPS = 15 * SCALE, 30

NAMES = st.sampled_from(["a", "b", "c", "d", ""])
MAYBE_NAMES = st.none() | NAMES
ALIASES = st.sampled_from([ABSENT, None, "a.internal", "b.internal", "nodots"])
#: Which of the objects there are: taken modulo their number; a negative number means one that is gone or never was.
PICK = st.sampled_from([*range(4)] * 8 + [-1, -2])
PICKS = st.lists(PICK, max_size=3)
SETS = st.tuples(st.none() | PICKS, st.none() | PICKS, st.none() | PICKS)
#: When access ends: None never, "same" as it stands, else seconds from now.
ENDS = st.sampled_from([None, "same", 10, 2 * HOUR, 3 * DAY, 400 * DAY])
EDGES = st.lists(st.tuples(PICK, ENDS, st.booleans()), max_size=3)

EVERYTHING = """{
  serviceAccounts(first: 50) { edges { node { id name resources(first: 50) { edges { node { id } } }
    keys(first: 50) { edges { node { id name status expiresAt revokedAt serviceAccount { id } } } } } } }
  resources(first: 50) { edges { node { id name alias access(first: 50) { edges {
    node { ... on Group { id } ... on ServiceAccount { id } } expiresAt securityPolicy { id } } } } } }
  groups(first: 50) { edges { node { id name type users(first: 50) { edges { node { id } } }
    resources(first: 50) { edges { node { id } } } } } }
}"""


class Timed(Running):
    """A controller whose clock stands still until a test moves it."""

    now = 1_900_000_000.0

    def clock(self) -> float:
        return self.now


def iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds).astimezone().isoformat()


def seconds(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()


def nodes(connection: dict[str, Any]) -> list[dict[str, Any]]:
    return [edge["node"] for edge in connection["edges"]]


def ids(connection: dict[str, Any]) -> set[str]:
    return {node["id"] for node in nodes(connection)}


class Api(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="klinket-stateful-")
        self.runner = asyncio.Runner()
        self.controller = Timed(Path(self.folder))
        self.runner.run(self.controller.open())
        self.gone: list[str] = []

    def teardown(self) -> None:
        self.controller.store.close()
        self.runner.close()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        users = [str(self.made(f'userCreate(email: "u{number}@example.com")')) for number in range(2)]
        policy, everyone = self.runner.run(
            self.controller.write(
                lambda tx: (security_policies.create(tx, SYSTEM, name="Strict").id, groups.ensure_everyone(tx).id)
            )
        )
        self.network = self.made('remoteNetworkCreate(name: "office")')
        self.model = Model(self.controller.now, users, [to_global_id("SecurityPolicy", policy)])
        self.model.groups[to_global_id("Group", everyone)] = Group("Everyone", "SYSTEM", set(users))
        for number in range(2):
            self.resource_create(f"resource {number}", ABSENT, [])
            self.account_create(f"account {number}", [number])
        self.group_create("group", [0], [1])

    # ---- asking

    def made(self, field: str) -> str:
        return str(
            self.runner.run(self.controller.change(f"mutation {{ {field} {{ ok error entity {{ id }} }} }}"))["entity"]["id"]
        )

    def change(self, field: str, declared: str, wrong: list[str], **given: Any) -> str | None:
        """Return the id of what was made or changed; None where something was `wrong`, and then one of these is told.

        `declared`: "name: Type!, ..."; arguments that are ABSENT are not sent.
        """
        given = {name: value for name, value in given.items() if value is not ABSENT}
        types = dict(part.split(": ") for part in declared.split(", "))
        header = ", ".join(f"${name}: {types[name]}" for name in given)
        arguments = ", ".join(f"{name}: ${name}" for name in given)
        entity = "" if field.endswith("Delete") else "entity { id }"
        document = f"mutation ({header}) {{ {field}({arguments}) {{ ok error {entity} }} }}"
        payload = self.runner.run(self.controller.try_change(document, **given))
        assert payload["ok"] is not bool(wrong), (field, given, payload, wrong)
        if wrong:
            assert any(text in payload["error"] for text in wrong), (payload["error"], wrong)
            assert payload.get("entity") is None
            return None
        assert payload["error"] is None
        return str(payload["entity"]["id"]) if entity else ""

    def pick(self, among: Any, number: int, type_: str) -> str:
        """Return one of the ids, or now and then one of an object that is gone or never was."""
        known = sorted(among)
        if number < 0 or not known:
            lost = [id for id in self.gone if id not in known]
            return lost[-1] if lost and number == -1 else to_global_id(type_, 999)
        return known[number % len(known)]

    def picks(self, among: Any, numbers: list[int] | None, type_: str) -> list[str] | None:
        return None if numbers is None else [self.pick(among, number, type_) for number in numbers if among or number < 0]

    def sets(self, among: Any, drawn: Any, type_: str) -> Sets:
        return Sets(*(self.picks(among, numbers, type_) for numbers in drawn))

    def lose(self, id: str) -> None:
        self.model.forget(id)
        self.gone.append(id)

    # ---- service accounts and keys

    @rule(name=NAMES, drawn=PICKS)
    def account_create(self, name: str, drawn: list[int]) -> None:
        resources = self.picks(self.model.resources, drawn, "Resource") or []
        wrong = self.model.name_taken(name, self.model.accounts.items()) + self.model.missing(resources, self.model.resources)
        id = self.change("serviceAccountCreate", "name: String!, resourceIds: [ID]", wrong, name=name, resourceIds=resources)
        if id is not None:
            self.model.accounts[id] = name
            self.model.change_resources(id, set(resources))

    @rule(number=PICK, name=MAYBE_NAMES, drawn=SETS)
    def account_update(self, number: int, name: str | None, drawn: Any) -> None:
        id = self.pick(self.model.accounts, number, "ServiceAccount")
        change = self.sets(self.model.resources, drawn, "Resource")
        wrong = self.model.missing([id], self.model.accounts) + self.model.missing(change.named, self.model.resources)
        wrong += self.model.name_taken(name, self.model.accounts.items(), id)
        declared = "id: ID!, name: String, resourceIds: [ID], addedResourceIds: [ID], removedResourceIds: [ID]"
        given = {"resourceIds": change.replace, "addedResourceIds": change.added, "removedResourceIds": change.removed}
        if self.change("serviceAccountUpdate", declared, wrong, id=id, name=name, **given) is not None:
            self.model.accounts[id] = self.model.accounts[id] if name is None else name
            self.model.change_resources(id, change.applied(self.model.resources_of(id)))

    @rule(number=PICK)
    def account_delete(self, number: int) -> None:
        id = self.pick(self.model.accounts, number, "ServiceAccount")
        if self.change("serviceAccountDelete", "id: ID!", self.model.missing([id], self.model.accounts), id=id) is not None:
            self.lose(id)

    @rule(number=PICK, name=MAYBE_NAMES, days=st.sampled_from([0, 0, 1, 30, 365, -1, 366]))
    def key_create(self, number: int, name: str | None, days: int) -> None:
        account = self.pick(self.model.accounts, number, "ServiceAccount")
        wrong = self.model.missing([account], self.model.accounts) + self.model.name_taken(name, [])
        wrong += [model.BAD_DAYS] if not 0 <= days <= 365 else []
        declared = "serviceAccountId: ID!, expirationTime: Int!, name: String"
        id = self.change("serviceAccountKeyCreate", declared, wrong, serviceAccountId=account, expirationTime=days, name=name)
        if id is not None:
            if name is None:
                found = self.runner.run(self.controller.query(f'{{ serviceAccountKey(id: "{id}") {{ name }} }}'))
                name = str(found["serviceAccountKey"]["name"])
                assert 0 < len(name) <= MAX_NAME_CHARS
            self.model.keys[id] = Key(name, account, None if days == 0 else self.model.now + days * DAY)

    def key(self, number: int, states: set[str]) -> tuple[str, list[str]]:
        """Return a key, and what is wrong with it unless it is in one of the states."""
        id = self.pick(self.model.keys, number, "ServiceAccountKey")
        if id not in self.model.keys:
            return id, [MISSING]
        state = self.model.keys[id].status(self.model.now)
        return id, [] if state in states else [f"Service account key in {state} state cannot be"]

    @rule(number=PICK, name=NAMES)
    def key_rename(self, number: int, name: str) -> None:
        id, wrong = self.key(number, {"ACTIVE"})
        wrong += self.model.name_taken(name, [])
        if self.change("serviceAccountKeyUpdate", "id: ID!, name: String!", wrong, id=id, name=name) is not None:
            self.model.keys[id].name = name

    @rule(number=PICK)
    def key_revoke(self, number: int) -> None:
        id, wrong = self.key(number, {"ACTIVE"})
        if self.change("serviceAccountKeyRevoke", "id: ID!", wrong, id=id) is not None:
            self.model.keys[id].revoked = self.model.now

    @rule(number=PICK)
    def key_delete(self, number: int) -> None:
        id, wrong = self.key(number, {"REVOKED", "EXPIRED"})
        if self.change("serviceAccountKeyDelete", "id: ID!", wrong, id=id) is not None:
            self.lose(id)

    # ---- resources and access

    @rule(name=NAMES, alias=ALIASES, drawn=PICKS)
    def resource_create(self, name: str, alias: Any, drawn: list[int]) -> None:
        held = self.picks(self.model.groups, drawn, "Group") or []
        wrong = self.model.name_taken(name, []) + self.model.alias_taken(alias) + self.model.missing(held, self.model.groups)
        declared = "name: String!, address: String!, remoteNetworkId: ID!, alias: String, groupIds: [ID]"
        given = {"address": "db.internal", "remoteNetworkId": self.network, "alias": alias, "groupIds": held}
        id = self.change("resourceCreate", declared, wrong, name=name, **given)
        if id is not None:
            self.model.resources[id] = Resource(name, None if alias is ABSENT else alias)
            self.model.change_principals(id, set(held), self.model.groups)

    @rule(number=PICK, name=MAYBE_NAMES, alias=ALIASES, drawn=SETS)
    def resource_update(self, number: int, name: str | None, alias: Any, drawn: Any) -> None:
        id = self.pick(self.model.resources, number, "Resource")
        change = self.sets(self.model.groups, drawn, "Group")
        wrong = self.model.missing([id], self.model.resources) + self.model.missing(change.named, self.model.groups)
        wrong += self.model.name_taken(name, []) + self.model.alias_taken(alias, id)
        declared = "id: ID!, name: String, alias: String, groupIds: [ID], addedGroupIds: [ID], removedGroupIds: [ID]"
        given = {"groupIds": change.replace, "addedGroupIds": change.added, "removedGroupIds": change.removed}
        if self.change("resourceUpdate", declared, wrong, id=id, name=name, alias=alias, **given) is not None:
            row = self.model.resources[id]
            row.name = row.name if name is None else name
            row.alias = row.alias if alias is ABSENT else alias
            before = self.model.held_by(id, self.model.groups)
            self.model.change_principals(id, change.applied(before), self.model.groups)

    @rule(number=PICK)
    def resource_delete(self, number: int) -> None:
        id = self.pick(self.model.resources, number, "Resource")
        if self.change("resourceDelete", "id: ID!", self.model.missing([id], self.model.resources), id=id) is not None:
            self.lose(id)

    def edges(self, resource: str, drawn: Any) -> list[tuple[str, Edge]]:
        found = []
        for number, ends, strict in drawn:
            principal = self.pick(self.model.principals, number, "Group")
            held = self.model.edges.get((resource, principal), Edge())
            expires = held.expires if ends == "same" else None if ends is None else self.model.now + ends
            found.append((principal, Edge(expires, self.model.policies[0] if strict else None)))
        return found

    @precondition(lambda self: self.model.resources)
    @rule(number=PICK, drawn=EDGES, replaces=st.booleans())
    def access_change(self, number: int, drawn: Any, replaces: bool) -> None:
        resource = self.pick(self.model.resources, number, "Resource")
        edges = self.edges(resource, drawn)
        wrong = self.model.missing([resource], self.model.resources)
        wrong += self.model.missing([one for one, _ in edges], self.model.principals)
        after = Model(self.model.now, [], [], self.model.accounts, {}, {}, self.model.groups, dict(self.model.edges))
        for principal, edge in edges:  # in their order: what is wrong with an earlier one is told before a later one is looked up
            settled = edge if principal in self.model.groups else Edge(edge.expires)
            wrong += after.expiry_wrong(resource, principal, settled)
            after.put(resource, principal, settled)
        access = [
            {"principalId": principal, "expiresAt": iso(edge.expires), "securityPolicyId": edge.policy}
            for principal, edge in edges
        ]
        field = "resourceAccessSet" if replaces else "resourceAccessAdd"
        declared = "resourceId: ID!, access: [AccessInput!]!"
        if self.change(field, declared, wrong, resourceId=resource, access=access) is not None:
            self.model.edges = after.edges
            if replaces:
                wanted = {principal for principal, _ in edges}
                self.model.change_principals(resource, wanted, self.model.principals)

    @precondition(lambda self: self.model.resources)
    @rule(number=PICK, drawn=PICKS)
    def access_remove(self, number: int, drawn: list[int]) -> None:
        resource = self.pick(self.model.resources, number, "Resource")
        named = self.picks(self.model.principals, drawn, "Group") or []
        wrong = self.model.missing([resource], self.model.resources)
        declared = "resourceId: ID!, principalIds: [ID!]!"
        if self.change("resourceAccessRemove", declared, wrong, resourceId=resource, principalIds=named) is not None:
            kept = self.model.held_by(resource, self.model.principals) - set(named)
            self.model.change_principals(resource, kept, self.model.principals)

    # ---- groups

    @rule(name=NAMES, users=PICKS, drawn=PICKS)
    def group_create(self, name: str, users: list[int], drawn: list[int]) -> None:
        members = self.picks(self.model.users, users, "User") or []
        resources = self.picks(self.model.resources, drawn, "Resource") or []
        wrong = self.model.name_taken(name, self.group_names()) + self.model.missing(members, self.model.users)
        wrong += self.model.missing(resources, self.model.resources)
        declared = "name: String!, userIds: [ID], resourceIds: [ID]"
        id = self.change("groupCreate", declared, wrong, name=name, userIds=members, resourceIds=resources)
        if id is not None:
            self.model.groups[id] = Group(name, users=set(members))
            self.model.change_resources(id, set(resources))

    def group_names(self) -> list[tuple[str, str]]:
        return [(id, row.name) for id, row in self.model.groups.items()]

    @rule(number=PICK, name=MAYBE_NAMES, users=SETS, drawn=SETS)
    def group_update(self, number: int, name: str | None, users: Any, drawn: Any) -> None:
        id = self.pick(self.model.groups, number, "Group")
        members, resources = self.sets(self.model.users, users, "User"), self.sets(self.model.resources, drawn, "Resource")
        wrong = self.model.missing([id], self.model.groups) + self.model.missing(members.named, self.model.users)
        wrong += self.model.missing(resources.named, self.model.resources)
        wrong += self.model.name_taken(name, self.group_names(), id)
        row = self.model.groups.get(id, Group(""))
        wanted = members.applied(row.users)
        if row.kind == "SYSTEM" and (name is not None or wanted != row.users):
            wrong.append("is of type SYSTEM and cannot be edited")
        declared = (
            "id: ID!, name: String, userIds: [ID], addedUserIds: [ID], removedUserIds: [ID], "
            "resourceIds: [ID], addedResourceIds: [ID], removedResourceIds: [ID]"
        )
        given = {"userIds": members.replace, "addedUserIds": members.added, "removedUserIds": members.removed}
        given |= {"resourceIds": resources.replace, "addedResourceIds": resources.added, "removedResourceIds": resources.removed}
        if self.change("groupUpdate", declared, wrong, id=id, name=name, **given) is not None:
            row.name = row.name if name is None else name
            row.users = wanted
            self.model.change_resources(id, resources.applied(self.model.resources_of(id)))

    @rule(number=PICK)
    def group_delete(self, number: int) -> None:
        id = self.pick(self.model.groups, number, "Group")
        wrong = self.model.missing([id], self.model.groups)
        if id in self.model.groups and self.model.groups[id].kind == "SYSTEM":
            wrong.append("cannot be edited")
        if self.change("groupDelete", "id: ID!", wrong, id=id) is not None:
            self.lose(id)

    # ---- time

    @rule(passed=st.sampled_from([30, HOUR, 2 * HOUR, DAY, 31 * DAY]))
    def time_passes(self, passed: int) -> None:
        """The controller ends what has expired when its moment comes: here right away."""
        self.controller.now += passed
        self.model.advance(passed)
        self.runner.run(self.controller.write(end_expired))

    def shown(self, key: dict[str, Any]) -> Key:
        return Key(key["name"], key["serviceAccount"]["id"], seconds(key["expiresAt"]), seconds(key["revokedAt"]))

    @invariant()
    def they_do_not_differ(self) -> None:
        found = self.runner.run(self.controller.query(EVERYTHING))
        it = self.model
        assert {node["id"]: node["name"] for node in nodes(found["serviceAccounts"])} == it.accounts
        for node in nodes(found["serviceAccounts"]):
            assert ids(node["resources"]) == it.resources_of(node["id"])
        keys = [key for node in nodes(found["serviceAccounts"]) for key in nodes(node["keys"])]
        assert {key["id"]: self.shown(key) for key in keys} == it.keys
        assert {key["id"]: key["status"] for key in keys} == {id: key.status(it.now) for id, key in it.keys.items()}
        assert {node["id"]: Resource(node["name"], node["alias"]) for node in nodes(found["resources"])} == it.resources
        assert {
            (node["id"], edge["node"]["id"]): Edge(seconds(edge["expiresAt"]), (edge["securityPolicy"] or {}).get("id"))
            for node in nodes(found["resources"])
            for edge in node["access"]["edges"]
        } == it.edges
        for node in nodes(found["groups"]):
            assert ids(node["resources"]) == it.resources_of(node["id"])
        assert {node["id"]: Group(node["name"], node["type"], ids(node["users"])) for node in nodes(found["groups"])} == it.groups


TestApi = Api.TestCase
TestApi.settings = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a run takes a second: what fails is shown with its steps, not made smaller
    suppress_health_check=list(HealthCheck),
)
