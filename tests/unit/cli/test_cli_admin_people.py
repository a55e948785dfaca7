"""`klinket admin` group, user, policy, device, serial-number: the nouns about people, against a controller that listens."""

from __future__ import annotations

import pytest

from klinket.controller.app import security_policies
from klinket.domain.audit import SYSTEM
from tests.unit.cli.conftest import Admin


async def test_a_group_is_made_listed_changed_and_deleted(admin: Admin) -> None:
    await admin.ok("user", "create", "ada@example.com")
    await admin.running.write(lambda tx: security_policies.create(tx, SYSTEM, name="Strict"))
    made = await admin.json("group", "create", "engineers", "--user", "ada@example.com", "--policy", "Strict")
    assert (made["users"], made["securityPolicy"], made["type"]) == (["ada@example.com"], "Strict", "MANUAL")
    assert [row["name"] for row in await admin.json("group", "list")] == ["Everyone", "engineers"]
    assert (await admin.json("group", "rename", "engineers", " developers "))["name"] == "developers"
    assert (await admin.json("group", "show", made["id"]))["members"] == 1
    assert (await admin.json("group", "policy", "developers", "Default Policy"))["securityPolicy"] == "Default Policy"
    await admin.ok("user", "create", "bob@example.com")
    members = await admin.json("group", "members", "developers", "--add", "bob@example.com", "--remove", "ada@example.com")
    assert [row["email"] for row in members] == ["bob@example.com"]
    assert "bob@example.com" in await admin.ok("group", "members", "developers")
    assert await admin.json("group", "delete", "developers") == {"ok": True}
    code, text = await admin.fails("group", "show", "developers")
    assert code == 81
    assert "klinket admin group list" in text


async def test_the_group_of_everyone_is_not_edited(admin: Admin) -> None:
    code, text = await admin.fails("group", "rename", "Everyone", "All")
    assert code == 80
    assert "SYSTEM" in text


async def test_a_user_is_made_changed_and_deleted(admin: Admin) -> None:
    made = await admin.json("user", "create", "ada@example.com", "--first-name", "Ada", "--role", "devops")
    assert (made["email"], made["firstName"], made["role"], made["state"]) == ("ada@example.com", "Ada", "DEVOPS", "PENDING")
    assert (await admin.json("user", "update", "ada@example.com", "--last-name", "L"))["lastName"] == "L"
    assert (await admin.json("user", "role", "ada@example.com", "access-reviewer"))["role"] == "ACCESS_REVIEWER"
    assert (await admin.json("user", "show", made["id"]))["groups"] == ["Everyone"]
    assert [row["email"] for row in await admin.json("user", "list")] == ["ada@example.com"]
    assert await admin.json("user", "reset-mfa", "ada@example.com") == {"ok": True}
    code, text = await admin.fails("user", "update", "ada@example.com", "--state", "disabled")
    assert code == 80
    assert "PENDING" in text
    assert await admin.json("user", "delete", "ada@example.com") == {"ok": True}
    assert (await admin.fails("user", "show", "ada@example.com"))[0] == 81


async def test_a_policy_names_its_groups(admin: Admin) -> None:
    for name in ("a", "b"):
        await admin.ok("group", "create", name)
    await admin.running.write(lambda tx: security_policies.create(tx, SYSTEM, name="Strict"))
    assert (await admin.json("policy", "update", "Strict", "--add-group", "a", "--add-group", "b"))["groups"] == ["a", "b"]
    assert (await admin.json("policy", "update", "Strict", "--remove-group", "a"))["groups"] == ["b"]
    assert (await admin.json("policy", "update", "Strict", "--group", "a"))["groups"] == ["a"]
    assert (await admin.json("policy", "update", "Strict", "--no-groups"))["groups"] == []
    assert [row["name"] for row in await admin.json("policy", "list")] == ["Default Policy", "Strict"]
    assert (await admin.json("policy", "show", "Default Policy"))["policyType"] == "RESOURCE"
    assert (await admin.fails("policy", "update", "Strict"))[0] == 2
    assert (await admin.fails("policy", "update", "Strict", "--group", "a", "--add-group", "b"))[0] == 2


@pytest.mark.parametrize(
    ("command", "field", "value"),
    [
        (["trust"], "isTrusted", True),
        (["trust", "--off"], "isTrusted", False),
        (["block"], "activeState", "BLOCKED"),
        (["archive"], "activeState", "ARCHIVED"),
    ],
)
async def test_a_device_changes_as_told(admin: Admin, command: list[str], field: str, value: object) -> None:
    await admin.running.write(lambda tx: tx.devices.add(name="laptop-7", is_trusted=False, active_state="ACTIVE", facts={}))
    assert [row["name"] for row in await admin.json("device", "list")] == ["laptop-7"]
    assert (await admin.json("device", *command, "laptop-7"))[field] == value
    assert (await admin.json("device", "show", "laptop-7"))[field] == value


async def test_a_device_comes_back(admin: Admin) -> None:
    await admin.running.write(lambda tx: tx.devices.add(name="laptop-7", is_trusted=False, active_state="ACTIVE", facts={}))
    for away, back in (("block", "unblock"), ("archive", "unarchive")):
        await admin.ok("device", away, "laptop-7")
        assert (await admin.json("device", back, "laptop-7"))["activeState"] == "ACTIVE"
    assert (await admin.fails("device", "unblock", "laptop-7"))[0] == 80


async def test_serial_numbers_are_added_listed_and_removed(admin: Admin) -> None:
    assert [row["serialNumber"] for row in await admin.json("serial-number", "add", "A1", "B2")] == ["A1", "B2"]
    assert "B2" in await admin.ok("serial-number", "list")
    assert await admin.json("serial-number", "remove", "A1") == {"ok": True}
    assert [row["serialNumber"] for row in await admin.json("serial-number", "list")] == ["B2"]
    assert (await admin.fails("serial-number", "remove", "A1"))[0] == 81
