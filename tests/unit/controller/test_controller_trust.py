"""The network's trust: made once, sealed, and signing keys that are replaced without anything signed failing."""

from __future__ import annotations

import os

import pytest

from klinket.controller import trust
from klinket.controller.authority import AuthorityPurpose
from klinket.controller.sealing import MasterKey, MasterKeyWrong
from klinket.controller.trust import RETIRED_MS, ROTATE_MS, KeyPurpose, Trust
from klinket.domain.errors import InvalidToken
from klinket.wire import signing
from tests.unit.controller.running import NETWORK, Running


async def load(controller: Running, master: MasterKey | None = None) -> Trust:
    return await trust.load_or_make(controller.store, master or controller.master, NETWORK, os.urandom)


def signed(loaded: Trust, purpose: KeyPurpose, now: float) -> str:
    claims = {"iss": NETWORK, "aud": "test", "iat": int(now), "exp": int(now) + 60}
    return signing.sign(loaded.signers[purpose], "test+jwt", claims)


def verify(loaded: Trust, purpose: KeyPurpose, token: str, now: float) -> None:
    keys = loaded.keys[purpose]
    signing.verify(token, keys, typ="test+jwt", issuer=NETWORK, audience="test", now=now, max_lifetime=60)


async def test_a_second_start_has_the_same_trust(controller: Running) -> None:
    again = await load(controller)
    for purpose in AuthorityPurpose:
        assert again.authorities[purpose].certificate == controller.trust.authorities[purpose].certificate
    for key_purpose in KeyPurpose:
        assert again.signers[key_purpose].kid == controller.trust.signers[key_purpose].kid


async def test_no_purpose_shares_a_key_and_no_kind_of_token_verifies_as_another(controller: Running) -> None:
    loaded, now = controller.trust, controller.clock()
    public = [one.certificate.public_key() for one in loaded.authorities.values()]
    public += [loaded.signers[purpose].public_key for purpose in KeyPurpose]
    assert len({signing.thumbprint(key) for key in public}) == len(public)  # type: ignore[arg-type]
    for purpose in KeyPurpose:
        verify(loaded, purpose, signed(loaded, purpose, now), now)
        for other in set(KeyPurpose) - {purpose}:
            with pytest.raises(InvalidToken):
                verify(loaded, other, signed(loaded, purpose, now), now)


async def test_another_master_key_opens_nothing(controller: Running) -> None:
    with pytest.raises(MasterKeyWrong, match="does not open"):
        await load(controller, MasterKey(os.urandom(32)))


async def test_after_a_rotation_the_new_key_signs_and_the_old_one_still_verifies(controller: Running) -> None:
    now = controller.clock()
    before = signed(controller.trust, KeyPurpose.GRANT, now)
    await controller.write(lambda tx: trust.rotate(tx, controller.master, KeyPurpose.GRANT, os.urandom))
    after = await load(controller)
    assert after.signers[KeyPurpose.GRANT].kid != controller.trust.signers[KeyPurpose.GRANT].kid
    assert after.signers[KeyPurpose.CUT].kid == controller.trust.signers[KeyPurpose.CUT].kid
    verify(after, KeyPurpose.GRANT, before, now)
    verify(after, KeyPurpose.GRANT, signed(after, KeyPurpose.GRANT, now), now)
    assert len(after.jwks()["keys"]) == len(KeyPurpose) + 1  # type: ignore[arg-type]


async def test_a_retired_key_verifies_longer_than_anything_it_signed_lives_and_then_no_more(controller: Running) -> None:
    old = controller.trust.signers[KeyPurpose.CUT].kid
    await controller.write(lambda tx: trust.rotate(tx, controller.master, KeyPurpose.CUT, os.urandom))
    controller.offset = RETIRED_MS / 1000 - 60
    assert old in [key["kid"] for key in (await load(controller)).jwks()["keys"]]  # type: ignore[attr-defined]
    controller.offset = RETIRED_MS / 1000 + 60
    assert old not in [key["kid"] for key in (await load(controller)).jwks()["keys"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("after_ms", "replaced"), [(ROTATE_MS - 60_000, False), (ROTATE_MS + 60_000, True)])
async def test_a_start_replaces_keys_that_are_old(controller: Running, after_ms: int, replaced: bool) -> None:
    controller.offset = after_ms / 1000
    after = await load(controller)
    for purpose in KeyPurpose:
        assert (after.signers[purpose].kid != controller.trust.signers[purpose].kid) is replaced


async def test_no_private_key_rests_unsealed(controller: Running) -> None:
    stored = controller.everything_stored()
    for purpose in KeyPurpose:
        assert signing.private_key_to_pem(controller.trust.signers[purpose].private_key).encode() not in stored
    assert b"PRIVATE KEY" not in stored
