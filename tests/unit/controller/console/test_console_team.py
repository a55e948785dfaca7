"""Team > Users and Groups, and Policies."""

from __future__ import annotations

import pytest

from klinket.controller.app import defaults, group_access, groups, security_policies, users
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import GroupRow, SecurityPolicyRow, UserRow
from klinket.controller.graphql.global_id import number_of
from klinket.domain.audit import SYSTEM
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only
USERS, GROUPS, POLICIES = "/team/users", "/team/groups", "/policies"


@pytest.fixture(autouse=True)
async def _defaults(controller: Running) -> None:
    await controller.write(defaults.ensure)


async def add_user(controller: Running, name: str, role: str = "MEMBER", state: str = users.ACTIVE) -> UserRow:
    def make(tx: Transaction) -> UserRow:
        row = users.create(tx, SYSTEM, email=f"{name}@example.com", first_name=name.title(), last_name="Test", role=role)
        return tx.users.change(row.id, state=state)

    return await controller.write(make)


async def add_group(controller: Running, name: str, type: str = groups.MANUAL) -> GroupRow:
    def make(tx: Transaction) -> GroupRow:
        return tx.groups.change(groups.create(tx, SYSTEM, name=name, security_policy_id=None).id, group_type=type)

    return await controller.write(make)


async def members(controller: Running, group: GroupRow) -> set[int]:
    return await controller.read(lambda tx: groups.member_ids(tx, group))


async def user_of(controller: Running, id: int) -> UserRow:
    found = await controller.read(lambda tx: tx.users.get(id))
    assert found is not None
    return found


# ---- users


async def test_a_user_is_invited_changed_and_deleted(controller: Running, admin: Browser) -> None:
    sent = {"email": "Grace@Example.com", "firstName": "Grace", "lastName": "", "role": "DEVOPS"}
    await admin.post(USERS + "/new", sent)
    (row,) = await controller.read(lambda tx: tx.users.find(email="grace@example.com"))
    assert (row.role, row.state, row.first_name, row.last_name) == ("DEVOPS", users.PENDING, "Grace", None)
    place = f"{USERS}/{row.id}"
    page = await admin.get(place)
    assert "the state can change after the first sign-in" in page.text
    fields = {"firstName": "Grace", "lastName": "Hopper", "role": "SUPPORT", "seen": admin.seen(page)}
    assert (await admin.post(place, fields)).status_code == 303
    changed = await user_of(controller, row.id)
    assert (changed.last_name, changed.role) == ("Hopper", "SUPPORT")
    assert (await admin.post(place + "/delete")).headers["location"] == "/console" + USERS
    assert await controller.read(lambda tx: tx.users.find(email="grace@example.com")) == []
    assert (await controller.last_event()).actor["info"] == {"name": "admin@example.com"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"email": "grace"}, "an address like"), ({"email": "grace@example.com", "role": "OWNER"}, "role is one of")],
)
async def test_what_is_wrong_with_an_invitation_is_said(admin: Browser, wrong: dict[str, str], told: str) -> None:
    answer = await admin.post(USERS + "/new", {"firstName": "Gracia", "role": "MEMBER", **wrong})
    assert answer.status_code == 400
    assert told in answer.text
    assert 'value="Gracia"' in answer.text


@pytest.mark.parametrize("what", ["role", "state", "delete"])
async def test_the_last_admin_cannot_be_lost(controller: Running, admin: Browser, what: str) -> None:
    (row,) = await controller.read(lambda tx: tx.users.find(role="ADMIN"))
    page = await admin.get(f"{USERS}/{row.id}")
    fields = {"firstName": "Admin", "lastName": "", "role": "ADMIN", "state": "ACTIVE", "seen": admin.seen(page)}
    wrong = {"role": {"role": "MEMBER"}, "state": {"state": "DISABLED"}, "delete": {}}[what]
    answer = await admin.post(f"{USERS}/{row.id}" + ("/delete" if what == "delete" else ""), {**fields, **wrong})
    assert answer.status_code == 409
    assert "is the only active user with the role ADMIN" in answer.text
    assert await user_of(controller, row.id) == row


async def test_nothing_of_a_change_stays_when_a_part_of_it_is_refused(controller: Running, admin: Browser) -> None:
    (row,) = await controller.read(lambda tx: tx.users.find(role="ADMIN"))
    page = await admin.get(f"{USERS}/{row.id}")
    fields = {"firstName": "Other", "lastName": "", "role": "MEMBER", "state": "ACTIVE", "seen": admin.seen(page)}
    assert (await admin.post(f"{USERS}/{row.id}", fields)).status_code == 409
    assert await user_of(controller, row.id) == row


async def test_users_are_found_by_name_address_role_and_state(controller: Running, admin: Browser) -> None:
    for name, role, state in (("grace", "DEVOPS", "ACTIVE"), ("alan", "MEMBER", "DISABLED"), ("edsger", "MEMBER", "PENDING")):
        await add_user(controller, name, role, state)
    for query, found in (
        ("q=GRA", {"grace"}),
        ("q=alan%40example", {"alan"}),
        ("role=MEMBER", {"alan", "edsger"}),
        ("state=PENDING", {"edsger"}),
        ("role=MEMBER&state=DISABLED", {"alan"}),
        ("q=%25", set()),
        ("role=nonsense", {"grace", "alan", "edsger"}),
    ):
        text = (await admin.get(f"{USERS}?{query}")).text
        assert {name for name in ("grace", "alan", "edsger") if f"{name}@example.com" in text} == found, query


async def test_a_long_list_comes_in_pages_that_keep_the_search(controller: Running, admin: Browser) -> None:
    for number in range(60):
        await add_user(controller, f"person{number:02}")
    first = (await admin.get(f"{USERS}?q=person")).text
    assert "1–50 of 60" in first
    assert "?q=person&amp;page=2" in first
    second = (await admin.get(f"{USERS}?q=person&page=2")).text
    assert "person59" in second
    assert "person10" not in second


async def test_a_user_joins_and_leaves_groups_and_leaving_can_be_undone(controller: Running, admin: Browser) -> None:
    user, group = await add_user(controller, "grace"), await add_group(controller, "Platform")
    place, fields = f"{USERS}/{user.id}", {"group": str(group.id)}
    await admin.post(place + "/groups", fields)
    assert await members(controller, group) == {user.id}
    await admin.post(place + "/groups/leave", fields)
    assert await members(controller, group) == set()
    page = await admin.get(place)
    assert f'action="/console{place}/groups"' in page.text
    assert "Undo" in page.text


async def test_a_support_user_sees_people_and_no_buttons(controller: Running, support: Browser) -> None:
    user = await add_user(controller, "grace")
    for path in (USERS, f"{USERS}/{user.id}", GROUPS, POLICIES):
        page = await support.get(path)
        assert page.status_code == 200
        main = page.text.split("<main", 1)[1]
        assert 'method="post"' not in main, path
        assert "/new" not in main, path


# ---- groups


async def test_a_group_is_created_filled_renamed_and_deleted(controller: Running, admin: Browser) -> None:
    user = await add_user(controller, "grace")
    place = (await admin.post(GROUPS + "/new", {"name": "Platform", "policy": ""})).headers["location"]
    (group,) = await controller.read(lambda tx: tx.groups.find(name="Platform"))
    found = await admin.get(f"{GROUPS}/{group.id}?add=grace")
    assert f'name="user" value="{user.id}"' in found.text
    await admin.post(f"{GROUPS}/{group.id}/members", {"user": str(user.id)})
    assert await members(controller, group) == {user.id}
    assert "No other user matches" in (await admin.get(f"{GROUPS}/{group.id}?add=grace")).text
    page = await admin.get(place)
    fields = {"name": "Platform team", "policy": "", "is_active": "on", "seen": admin.seen(page)}
    assert (await admin.post(place, fields)).status_code == 303
    await admin.post(f"{GROUPS}/{group.id}/members/remove", {"user": str(user.id)})
    assert await members(controller, group) == set()
    assert "Undo" in (await admin.get(place)).text
    await admin.post(place + "/delete")
    assert await controller.read(lambda tx: tx.groups.find(group_type=groups.MANUAL)) == []


@pytest.mark.parametrize("type", [groups.SYNCED, groups.SYSTEM])
async def test_what_a_type_forbids_is_said_and_refused(controller: Running, admin: Browser, type: str) -> None:
    user = await add_user(controller, "grace")
    group = await add_group(controller, "Engineering", type)
    place = f"{GROUPS}/{group.id}"
    page = await admin.get(place)
    assert ("identity provider" if type == groups.SYNCED else "Every user is a member") in page.text
    assert "Delete group" not in page.text
    for path, fields in (
        ("/delete", {}),
        ("/members", {"user": str(user.id)}) if type == groups.SYNCED else ("/members/remove", {"user": str(user.id)}),
    ):
        assert (await admin.post(place + path, fields)).status_code == 409, path
    fields = {"name": "Renamed", "policy": "", "seen": admin.seen(page)}
    assert (await admin.post(place, fields)).status_code == 303  # the policy may be changed, and only that is
    assert await controller.read(lambda tx: tx.groups.find(name="Renamed")) == []


async def test_a_group_shows_what_it_reaches(controller: Running, admin: Browser) -> None:
    group = await add_group(controller, "Platform")
    id = number_of(await controller.add_resource(await controller.add_network(), name="Orders"), "Resource")

    def grant(tx: Transaction) -> None:
        resource = tx.resources.get(id)
        assert resource is not None
        group_access.grant(tx, SYSTEM, resource, group)

    await controller.write(grant)
    text = (await admin.get(f"{GROUPS}/{group.id}")).text
    assert f'href="/console/network/resources/{id}">Orders' in text
    assert "lose access to its 1 resources" in text


# ---- policies


async def add_policy(controller: Running, name: str) -> SecurityPolicyRow:
    return await controller.write(lambda tx: security_policies.create(tx, SYSTEM, name=name))


async def test_policies_say_that_they_do_not_concern_services_and_are_not_enforced(controller: Running, admin: Browser) -> None:
    row = await add_policy(controller, "Strict")
    for path in (POLICIES, f"{POLICIES}/{row.id}", POLICIES + "/new"):
        text = (await admin.get(path)).text
        assert "Policies apply to users, never to services." in text
        assert "they are not enforced for users yet" in text


async def test_a_policy_is_created_renamed_and_deleted(controller: Running, admin: Browser) -> None:
    place = (await admin.post(POLICIES + "/new", {"name": "Strict"})).headers["location"]
    page = await admin.get(place)
    assert (await admin.post(place, {"name": "Stricter", "seen": admin.seen(page)})).status_code == 303
    assert "Stricter" in (await admin.get(POLICIES)).text
    await admin.post(place + "/delete")
    assert [row.name for row in await controller.read(lambda tx: tx.security_policies.find())] == ["Default Policy"]


async def test_the_default_policy_stays_as_it_is(controller: Running, admin: Browser) -> None:
    (row,) = await controller.read(lambda tx: tx.security_policies.find())
    page = await admin.get(f"{POLICIES}/{row.id}")
    assert "Delete policy" not in page.text
    fields = {"name": "Other", "seen": str(row.updated_at_ms)}
    assert (await admin.post(f"{POLICIES}/{row.id}", fields)).status_code == 409
    assert (await admin.post(f"{POLICIES}/{row.id}/delete")).status_code == 409


async def test_a_policy_is_assigned_to_groups_and_resources_and_taken_away(controller: Running, admin: Browser) -> None:
    row, group = await add_policy(controller, "Strict"), await add_group(controller, "Platform")
    resource = number_of(await controller.add_resource(await controller.add_network(), name="Orders"), "Resource")
    place = f"{POLICIES}/{row.id}"
    found = (await admin.get(place + "?add=o")).text
    assert "Orders" in found
    assert "Platform" in found

    def assigned(tx: Transaction) -> tuple[int, int]:
        return tx.groups.count(security_policy_id=row.id), tx.resources.count(security_policy_id=row.id)

    for fields in ({"group": str(group.id)}, {"resource": str(resource)}):
        assert (await admin.post(place + "/assign", fields)).status_code == 303
    assert await controller.read(assigned) == (1, 1)
    refused = await admin.post(place + "/delete")
    assert refused.status_code == 409
    assert "in use by 1 groups, 1 resources" in refused.text
    for fields in ({"group": str(group.id)}, {"resource": str(resource)}):
        assert (await admin.post(place + "/withdraw", fields)).status_code == 303
    assert await controller.read(assigned) == (0, 0)
    assert "Undo" in (await admin.get(place)).text


async def test_a_group_gets_and_loses_a_policy_on_its_own_page(controller: Running, admin: Browser) -> None:
    row, group = await add_policy(controller, "Strict"), await add_group(controller, "Platform")
    place = f"{GROUPS}/{group.id}"
    for policy in (str(row.id), ""):
        page = await admin.get(place)
        controller.offset += 1
        fields = {"name": "Platform", "is_active": "on", "policy": policy, "seen": admin.seen(page)}
        assert (await admin.post(place, fields)).status_code == 303
        changed = await controller.read(lambda tx: tx.groups.get(group.id))
        assert changed is not None
        assert changed.security_policy_id == (row.id if policy else None)


# ---- two at once, and nobody there


async def test_of_two_who_change_the_same_the_second_is_told(controller: Running, admin: Browser) -> None:
    user, group, policy = (
        await add_user(controller, "one"),
        await add_group(controller, "one"),
        await add_policy(controller, "one"),
    )
    for place, fields in (
        (f"{USERS}/{user.id}", {"firstName": "two", "lastName": "", "role": "MEMBER", "state": "ACTIVE"}),
        (f"{GROUPS}/{group.id}", {"name": "two", "policy": "", "is_active": "on"}),
        (f"{POLICIES}/{policy.id}", {"name": "two"}),
    ):
        seen = {"seen": admin.seen(await admin.get(place))}
        controller.offset += 1
        assert (await admin.post(place, {**fields, **seen})).status_code == 303, place
        second = await admin.post(place, {**fields, **seen})
        assert second.status_code == 409, place
        assert "somebody has changed this meanwhile" in second.text


async def test_what_is_not_there_is_told_as_a_page(admin: Browser) -> None:
    for path in (f"{USERS}/999", f"{GROUPS}/999", f"{POLICIES}/999", f"{USERS}/99999999999"):
        assert (await admin.get(path)).status_code == 404, path
