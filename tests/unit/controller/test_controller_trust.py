"""The network's trust: made once, sealed, and signing keys that are replaced without anything signed failing."""

from __future__ import annotations

import os

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from klinket.controller import trust
from klinket.controller.app import signing_keys
from klinket.controller.app.signing_keys import (
    MAX_VERIFYING,
    PUBLISHED_MS,
    RETIRED_HEAD_MS,
    RETIRED_MS,
    ROTATE_MS,
    KeyPurpose,
)
from klinket.controller.authority import AuthorityPurpose
from klinket.controller.sealing import MasterKey, MasterKeyWrong
from klinket.controller.trust import Trust
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import Conflict, InvalidInput, InvalidToken
from klinket.wire import head_token, signing
from tests.unit.controller.running import NETWORK, Running


async def load(controller: Running, master: MasterKey | None = None) -> Trust:
    return await trust.load_or_make(controller.store, master or controller.master, NETWORK, controller.clock, os.urandom)


async def test_a_database_keeps_its_network(controller: Running) -> None:
    with pytest.raises(InvalidInput, match=f"that of the network '{NETWORK}', not of 'acne'") as raised:
        await trust.load_or_make(controller.store, controller.master, "acne", controller.clock, os.urandom)
    assert raised.value.field == "--network"
    assert "another --database or --state" in str(raised.value.hint)


async def rotate(controller: Running, purpose: KeyPurpose) -> str:
    """Make a new key and return its id."""
    seal = controller.master.seal
    made = await controller.write(lambda tx: signing_keys.rotate(tx, SYSTEM, purpose, seal=seal, entropy=os.urandom))
    return made.kid


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


@pytest.mark.parametrize(
    ("purpose", "usage"),
    [
        (AuthorityPurpose.CLIENT, ExtendedKeyUsageOID.CLIENT_AUTH),
        (AuthorityPurpose.CONNECTOR, ExtendedKeyUsageOID.SERVER_AUTH),
        (AuthorityPurpose.WEB, ExtendedKeyUsageOID.SERVER_AUTH),
    ],
)
async def test_an_authority_certifies_leaves_of_one_use_and_no_authority(
    controller: Running, purpose: AuthorityPurpose, usage: x509.ObjectIdentifier
) -> None:
    """security.md 11."""
    authority = controller.trust.authorities[purpose]
    root = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (root.critical, root.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    key = signing.generate_private_key().public_key()
    serials = set()
    for _ in range(3):
        text = authority.certify(key, "spiffe://acme/x", now=controller.clock(), lifetime=60)
        leaf = x509.load_pem_x509_certificate(text.encode())
        constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.critical, constraints.value.ca) == (True, False)
        assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
        leaf.verify_directly_issued_by(authority.certificate)
        serials.add(leaf.serial_number)
    assert len(serials) == 3
    assert all(serial.bit_length() > 100 for serial in serials)


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


async def test_after_a_rotation_the_new_key_signs_once_it_was_told_and_the_old_one_still_verifies(controller: Running) -> None:
    now, old = controller.clock(), controller.trust.signers[KeyPurpose.GRANT].kid
    before = signed(controller.trust, KeyPurpose.GRANT, now)
    new = await rotate(controller, KeyPurpose.GRANT)
    for after in (controller.trust, await load(controller)):  # the running controller, and one that starts meanwhile
        await after.refresh(controller.store)
        assert after.signers[KeyPurpose.GRANT].kid == old
        assert new in [key["kid"] for key in after.jwks()["keys"]]  # type: ignore[attr-defined]
    controller.offset = PUBLISHED_MS / 1000 + 1
    for after in (controller.trust, await load(controller)):
        assert after.signers[KeyPurpose.GRANT].kid == new
        verify(after, KeyPurpose.GRANT, before, now)
        verify(after, KeyPurpose.GRANT, signed(after, KeyPurpose.GRANT, now), now)
        assert len(after.jwks()["keys"]) == len(KeyPurpose) + 1  # type: ignore[arg-type]


async def test_a_rotation_concerns_one_purpose_and_is_audited(controller: Running) -> None:
    before = {purpose: controller.trust.signers[purpose].kid for purpose in KeyPurpose}
    new = await rotate(controller, KeyPurpose.TICKET)
    event = await controller.last_event()
    assert (event.action, event.targets[0]["id"], event.targets[0]["name"]) == ("create", new, "ticket")
    assert event.detail == {"retired": before[KeyPurpose.TICKET]}
    controller.offset = PUBLISHED_MS / 1000 + 1
    after = await load(controller)
    assert {purpose for purpose in KeyPurpose if after.signers[purpose].kid != before[purpose]} == {KeyPurpose.TICKET}


async def test_a_key_is_not_rotated_again_before_it_signs(controller: Running) -> None:
    await rotate(controller, KeyPurpose.CUT)
    with pytest.raises(Conflict, match="does not sign yet"):
        await rotate(controller, KeyPurpose.CUT)
    controller.offset = PUBLISHED_MS / 1000 + 1
    await rotate(controller, KeyPurpose.CUT)


async def test_never_do_more_keys_verify_than_those_that_verify_can_know(controller: Running) -> None:
    for number in range(1, MAX_VERIFYING):
        controller.offset = number * (PUBLISHED_MS / 1000 + 1)
        await rotate(controller, KeyPurpose.TICKET)
    controller.offset += PUBLISHED_MS / 1000 + 1
    with pytest.raises(Conflict, match="the limit"):
        await rotate(controller, KeyPurpose.TICKET)
    assert MAX_VERIFYING < signing.MAX_KEYS


async def test_a_retired_key_verifies_longer_than_anything_it_signed_lives_and_then_no_more(controller: Running) -> None:
    old = controller.trust.signers[KeyPurpose.CUT].kid
    await rotate(controller, KeyPurpose.CUT)
    controller.offset = RETIRED_MS / 1000 - 60
    assert old in [key["kid"] for key in (await load(controller)).jwks()["keys"]]  # type: ignore[attr-defined]
    controller.offset = RETIRED_MS / 1000 + 60
    assert old not in [key["kid"] for key in (await load(controller)).jwks()["keys"]]  # type: ignore[attr-defined]


async def test_a_head_verifies_as_long_as_connectors_keep_it_whatever_was_rotated(controller: Running) -> None:
    token = head_token.sign_head(controller.trust.signers[KeyPurpose.HEAD], (1, 2), network=NETWORK, now=controller.clock())
    await rotate(controller, KeyPurpose.HEAD)
    controller.offset = head_token.LIFETIME_SECONDS - 3600
    keys = (await load(controller)).keys[KeyPurpose.HEAD]
    assert head_token.verify_head(token, keys, network=NETWORK) == (1, 2)
    assert RETIRED_HEAD_MS > head_token.LIFETIME_SECONDS * 1000 + PUBLISHED_MS


@pytest.mark.parametrize(("after_ms", "replaced"), [(ROTATE_MS - 60_000, False), (ROTATE_MS + 60_000, True)])
async def test_a_start_replaces_keys_that_are_old(controller: Running, after_ms: int, replaced: bool) -> None:
    controller.offset = after_ms / 1000
    after = await load(controller)
    for purpose in KeyPurpose:
        assert after.signers[purpose].kid == controller.trust.signers[purpose].kid  # peers are not back yet to hear of it
    controller.offset += PUBLISHED_MS / 1000 + 1
    for purpose in KeyPurpose:
        assert (after.signers[purpose].kid != controller.trust.signers[purpose].kid) is replaced


async def test_no_private_key_rests_unsealed(controller: Running) -> None:
    stored = controller.everything_stored()
    for purpose in KeyPurpose:
        assert signing.private_key_to_pem(controller.trust.signers[purpose].private_key).encode() not in stored
    assert b"PRIVATE KEY" not in stored
