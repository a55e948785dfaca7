"""There is always an active admin: nothing that would leave the network without one is done."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from klinket.controller.app import users
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import UserRow
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import Conflict, InvalidInput
from tests.unit.controller.running import Running

ENDS: dict[str, Callable[[Transaction, UserRow], object]] = {
    "disabled": lambda tx, row: users.update(tx, SYSTEM, row, first_name=None, last_name=None, state=users.DISABLED),
    "demoted": lambda tx, row: users.set_role(tx, SYSTEM, row, "MEMBER"),
    "deleted": lambda tx, row: users.delete(tx, SYSTEM, row),
}


async def add(controller: Running, name: str, role: str = users.ADMIN, state: str = users.ACTIVE) -> UserRow:
    def make(tx: Transaction) -> UserRow:
        row = users.create(tx, SYSTEM, email=f"{name}@example.com", first_name=name, last_name=None, role=role)
        return tx.users.change(row.id, state=state)

    return await controller.write(make)


@pytest.mark.parametrize("how", ENDS)
async def test_the_last_active_admin_stays(controller: Running, how: str) -> None:
    last = await add(controller, "ada")
    await add(controller, "grace", state=users.PENDING)  # may never come
    await add(controller, "alan", state=users.DISABLED)
    await add(controller, "edsger", role="DEVOPS")
    with pytest.raises(Conflict, match="is the only active user with the role ADMIN") as refused:
        await controller.write(lambda tx: ENDS[how](tx, last))
    assert refused.value.hint
    assert await controller.read(lambda tx: tx.users.get(last.id)) == last


@pytest.mark.parametrize("how", ENDS)
async def test_one_of_two_admins_may_go(controller: Running, how: str) -> None:
    first, _ = await add(controller, "ada"), await add(controller, "grace")
    await controller.write(lambda tx: ENDS[how](tx, first))
    assert await controller.read(lambda tx: tx.users.count(role=users.ADMIN, state=users.ACTIVE)) == 1


async def test_the_last_admin_may_be_renamed_and_made_admin_again(controller: Running) -> None:
    last = await add(controller, "ada")
    await controller.write(lambda tx: users.update(tx, SYSTEM, last, first_name="Ada", last_name="L", state=users.ACTIVE))
    await controller.write(lambda tx: users.set_role(tx, SYSTEM, last, users.ADMIN))


async def test_a_role_that_there_is_not_is_refused(controller: Running) -> None:
    row = await add(controller, "ada")
    with pytest.raises(InvalidInput, match="role is one of"):
        await controller.write(lambda tx: users.set_role(tx, SYSTEM, row, "OWNER"))


async def test_a_state_that_there_is_not_is_refused(controller: Running) -> None:
    row = await add(controller, "ada")
    with pytest.raises(InvalidInput, match="state is"):
        await controller.write(lambda tx: users.update(tx, SYSTEM, row, first_name=None, last_name=None, state="ASLEEP"))


@pytest.mark.parametrize(
    "email", ["\u212aate@example.com", "ada@exam\u212ale.com", "\u00e4da@example.com", "ada\u00a0@example.com"]
)
def test_an_address_is_ascii_before_it_is_made_lower_case(email: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        users.parse_email(email)
    assert refused.value.field == "email"
