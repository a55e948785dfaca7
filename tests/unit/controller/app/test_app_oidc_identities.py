"""Who accounts of an identity provider are here, and who is not let in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from klinket.controller.app import oidc_identities, passkeys, passwords, totp_secrets, users
from klinket.controller.app.oidc_identities import Identity, IdentityRules
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import UserRow
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import Conflict, IdentityRefused
from tests.unit.controller.app.conftest import Inventory

ADA = Identity("https://id.example", "sub-1", "ada@example.com", True, "Ada Lovelace", frozenset())
RULES = IdentityRules(frozenset({"example.com"}))
CREATING = replace(RULES, new_role="SUPPORT")
MAPPED = replace(CREATING, roles={"ops": "DEVOPS", "root": "ADMIN", "staff": "MEMBER"})


async def let_in(inventory: Inventory, rules: IdentityRules, identity: Identity) -> UserRow:
    return await inventory.write(lambda tx: oidc_identities.let_in(tx, SYSTEM, rules, identity))


async def add_user(inventory: Inventory, role: str = "ADMIN", state: str = "ACTIVE", email: str = "ada@example.com") -> UserRow:
    row = await inventory.write(lambda tx: users.create(tx, SYSTEM, email=email, first_name=None, last_name=None, role=role))
    return await inventory.write(lambda tx: tx.users.change(row.id, state=state))


@pytest.mark.parametrize(
    ("identity", "told"),
    [
        (replace(ADA, email_verified=False), "has not verified"),
        (replace(ADA, email="ada@evil.example"), "of this domain are not let in"),
        (replace(ADA, email="ada@example.com.evil.org"), "of this domain are not let in"),
        (replace(ADA, email="ada@sub.example.com"), "of this domain are not let in"),
        (replace(ADA, email='"a@example.com"@evil.org'), "names no e-mail address"),
        (replace(ADA, email=""), "names no e-mail address"),
    ],
)
async def test_an_address_counts_only_when_it_is_verified_and_of_a_listed_domain(
    inventory: Inventory, identity: Identity, told: str
) -> None:
    await add_user(inventory)
    with pytest.raises(IdentityRefused, match=told):
        await let_in(inventory, CREATING, identity)
    assert await inventory.read(lambda tx: tx.oidc_identities.count()) == 0


async def test_nobody_is_made_unless_that_is_said(inventory: Inventory) -> None:
    with pytest.raises(IdentityRefused, match="nobody has been invited"):
        await let_in(inventory, RULES, ADA)
    made = await let_in(inventory, CREATING, ADA)
    assert (made.email, made.role, made.state, made.first_name, made.last_name) == (
        "ada@example.com", "SUPPORT", "ACTIVE", "Ada", "Lovelace",
    )  # fmt: skip


async def test_an_invited_user_is_linked_and_then_known_by_the_subject_alone(inventory: Inventory) -> None:
    user = await add_user(inventory, state="PENDING")
    assert (await let_in(inventory, RULES, ADA)).state == "ACTIVE"
    moved = replace(ADA, email="other@elsewhere.org", email_verified=False)
    assert (await let_in(inventory, RULES, moved)).id == user.id


async def test_a_second_account_with_the_same_address_is_not_the_same_person(inventory: Inventory) -> None:
    await add_user(inventory)
    await let_in(inventory, RULES, ADA)
    with pytest.raises(IdentityRefused, match="another account"):
        await let_in(inventory, RULES, replace(ADA, subject="sub-2"))


async def test_the_same_subject_of_another_issuer_is_another_account(inventory: Inventory) -> None:
    await let_in(inventory, CREATING, ADA)
    with pytest.raises(IdentityRefused, match="nobody has been invited"):
        await let_in(inventory, RULES, replace(ADA, issuer="https://evil.example", email="eve@example.com"))


@pytest.mark.parametrize(
    ("values", "role"), [({"ops"}, "DEVOPS"), ({"ops", "root"}, "ADMIN"), ({"x", "ops"}, "DEVOPS"), ({"staff", "ops"}, "DEVOPS")]
)
async def test_the_role_follows_the_claim_at_each_sign_in(inventory: Inventory, values: set[str], role: str) -> None:
    await add_user(inventory, role="SUPPORT")
    assert (await let_in(inventory, MAPPED, replace(ADA, values=frozenset(values)))).role == role


@pytest.mark.parametrize(("values", "told"), [(set(), "no role here"), ({"Ops"}, "no role here"), ({"staff"}, "has no console")])
async def test_who_has_no_mapped_role_is_not_let_in(inventory: Inventory, values: set[str], told: str) -> None:
    await add_user(inventory)
    await add_user(inventory, email="grace@example.com")  # an admin remains
    with pytest.raises(IdentityRefused, match=told):
        await let_in(inventory, MAPPED, replace(ADA, values=frozenset(values)))


async def test_a_disabled_user_is_not_let_in_however_well_known(inventory: Inventory) -> None:
    user = await add_user(inventory)
    await let_in(inventory, RULES, ADA)
    await inventory.write(lambda tx: tx.users.change(user.id, state="DISABLED"))
    with pytest.raises(IdentityRefused, match="disabled"):
        await let_in(inventory, RULES, ADA)


async def test_a_refusal_leaves_nothing_behind(inventory: Inventory) -> None:
    before = await inventory.read(lambda tx: (tx.users.count(), tx.audit.count()))
    with pytest.raises(IdentityRefused):
        await let_in(inventory, replace(CREATING, new_role="MEMBER"), ADA)
    assert await inventory.read(lambda tx: (tx.users.count(), tx.audit.count())) == before
    assert await inventory.read(lambda tx: tx.oidc_identities.count()) == 0


async def test_the_last_way_in_is_not_unlinked(inventory: Inventory) -> None:
    user = await let_in(inventory, CREATING, ADA)
    (linked,) = await inventory.read(lambda tx: oidc_identities.of_user(tx, user.id))
    with pytest.raises(Conflict, match="last way"):
        await inventory.write(lambda tx: oidc_identities.unlink(tx, SYSTEM, user, linked["id"]))


@pytest.mark.parametrize("credential", ["password", "app", "passkey"])
async def test_an_account_with_credentials_of_its_own_is_not_taken_over(inventory: Inventory, credential: str) -> None:
    user = await add_user(inventory)

    def give(tx: Transaction) -> None:
        if credential == "password":
            passwords.put(tx, SYSTEM, user, "$argon2id$")
        elif credential == "app":
            totp_secrets.confirm(tx, SYSTEM, user, totp_secrets.offer(tx, user.id, b"s").id, 1)
        else:
            passkeys.add(tx, SYSTEM, user, name="Key", credential_id="x", public_key=b"x", sign_count=0, transports=())

    await inventory.write(give)
    with pytest.raises(IdentityRefused, match="signs in here with a password or a passkey"):
        await let_in(inventory, RULES, ADA)
    assert await inventory.read(lambda tx: tx.oidc_identities.count()) == 0
    await inventory.write(lambda tx: users.reset_second_factor(tx, SYSTEM, user))
    assert (await let_in(inventory, RULES, ADA)).id == user.id


async def test_an_address_that_becomes_another_in_lower_case_is_no_address(inventory: Inventory) -> None:
    await inventory.write(
        lambda tx: users.create(tx, SYSTEM, email="kate@example.com", first_name=None, last_name=None, role="ADMIN")
    )
    with pytest.raises(IdentityRefused, match="names no e-mail address"):
        await let_in(inventory, CREATING, replace(ADA, email="\u212aate@example.com"))
