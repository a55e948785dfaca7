"""A signing key of grants that is withdrawn: connectors lose it, and every client is given grants of another key."""

from __future__ import annotations

import os

import pytest

from klinket.controller.app import signing_keys
from klinket.controller.trust import KeyPurpose
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import InvalidInput, NotFound
from klinket.wire import control, signing
from tests.unit.controller.running import Running
from tests.unit.controller.test_controller_trusted_peers import office

pytestmark = pytest.mark.sqlite_only


async def withdraw(running: Running, kid: str) -> str | None:
    made = await running.write(lambda tx: signing_keys.withdraw(tx, SYSTEM, kid, seal=running.master.seal, entropy=os.urandom))
    return None if made is None else made.kid


def signer(token: str) -> object:
    return signing.unverified_header(token, len(token))["kid"]


async def test_connectors_lose_the_key_and_clients_get_grants_of_another(live: Running) -> None:
    _, enrolled, session = await office(live)
    old = live.trust.signers[KeyPurpose.GRANT].kid
    async with live.attached(enrolled) as edge, live.attached(session) as client:
        told = await edge.wait_for(control.ConnectorConfiguration)
        assert old in signing.KeySet.from_jwks(told.grant_keys)
        granted = await client.wait_for(control.ClientConfiguration)
        assert {signer(grant.token) for grant in granted.grants} == {old}
        new = await withdraw(live, old)
        told = await edge.wait_for(control.ConnectorConfiguration)
        keys = signing.KeySet.from_jwks(told.grant_keys)
        assert (old in keys, new in keys) == (False, True)
        while {signer(grant.token) for grant in granted.grants} != {new}:
            granted = await client.wait_for(control.ClientConfiguration)
    event = [row for row in await live.audit() if row.action == "revoke"][-1]
    assert event.detail == {"alarm": "signing-key-withdrawn", "successor": new}


async def test_withdrawing_a_key_that_was_replaced_before_makes_none(live: Running) -> None:
    old = live.trust.signers[KeyPurpose.GRANT].kid
    seal = live.master.seal
    made = await live.write(lambda tx: signing_keys.rotate(tx, SYSTEM, KeyPurpose.GRANT, seal=seal, entropy=os.urandom))
    assert await withdraw(live, old) is None
    await live.trust.refresh(live.store)
    assert live.trust.signers[KeyPurpose.GRANT].kid == made.kid  # at once: nobody could verify what the old one signs


async def test_the_private_half_of_a_withdrawn_key_is_not_kept(live: Running) -> None:
    old = live.trust.signers[KeyPurpose.GRANT].kid
    await withdraw(live, old)
    assert await live.read(lambda tx: tx.signing_keys.get(old)) is None
    with pytest.raises(NotFound):
        await withdraw(live, old)


@pytest.mark.parametrize("purpose", [purpose for purpose in KeyPurpose if purpose is not KeyPurpose.GRANT])
async def test_keys_of_other_purposes_are_not_withdrawn(live: Running, purpose: KeyPurpose) -> None:
    with pytest.raises(InvalidInput):
        await withdraw(live, live.trust.signers[purpose].kid)
