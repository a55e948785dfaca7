"""`klinket issue` beside a controller: signing keys."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from klinket.cli.main import klinket
from klinket.controller.app.signing_keys import PUBLISHED_MS, KeyPurpose
from klinket.controller.sealing import MasterKeyWrong
from klinket.domain.errors import InvalidInput, NotFound
from tests.unit.cli.conftest import Admin
from tests.unit.controller.running import Running


@pytest.fixture
def controller(admin: Admin) -> Running:
    return admin.running


async def issue(controller: Running, *words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, klinket, ["issue", *words, "--state", str(controller.config.state)])


async def test_a_new_signing_key_is_made_and_signs_later(controller: Running) -> None:
    before = controller.trust.signers[KeyPurpose.GRANT].kid
    told = (await issue(controller, "signing-key", "grant")).output
    await controller.trust.refresh(controller.store)
    assert controller.trust.signers[KeyPurpose.GRANT].kid == before
    controller.offset = PUBLISHED_MS / 1000 + 1
    assert f"made {controller.trust.signers[KeyPurpose.GRANT].kid}; it signs in 5 min" in told


async def test_accepting_a_head_is_asked_back_and_changes_nothing_until_it_is_said_so(controller: Running) -> None:
    before = await controller.read(lambda tx: tx.head())
    refused = await issue(controller, "accept-head")
    assert isinstance(refused.exception, InvalidInput)
    assert "--yes" in str(refused.exception.hint)
    assert await controller.read(lambda tx: tx.head()) == before
    assert (await issue(controller, "accept-head", "--yes")).output.startswith("accepted: epoch ")
    assert (await controller.read(lambda tx: tx.head()))[0] > before[0]


async def test_a_signing_key_for_nothing_there_is_names_what_there_is(controller: Running) -> None:
    result = await issue(controller, "signing-key", "coffee")
    assert isinstance(result.exception, InvalidInput)
    assert "access, grant, ticket, cut, head, audit" in result.exception.message


async def test_no_key_is_made_under_another_master_key(controller: Running, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_text(os.urandom(32).hex())
    other.chmod(0o600)
    before = await controller.read(lambda tx: tx.signing_keys.count())
    for path in (other, tmp_path / "missing.key"):
        result = await issue(controller, "signing-key", "grant", "--master-key-file", str(path))
        assert isinstance(result.exception, MasterKeyWrong)
    assert await controller.read(lambda tx: tx.signing_keys.count()) == before
    assert not (tmp_path / "missing.key").exists()


async def test_a_withdrawn_key_signs_and_verifies_nothing_from_then_on(controller: Running) -> None:
    old = controller.trust.signers[KeyPurpose.GRANT].kid
    told = (await issue(controller, "signing-key", "grant", "--withdraw", old)).output
    await controller.trust.refresh(controller.store)
    new = controller.trust.signers[KeyPurpose.GRANT].kid
    assert told == f"withdrew {old}; made {new}\n"
    assert old not in controller.trust.keys[KeyPurpose.GRANT]
    unknown = await issue(controller, "signing-key", "grant", "--withdraw", old)
    assert isinstance(unknown.exception, NotFound)
