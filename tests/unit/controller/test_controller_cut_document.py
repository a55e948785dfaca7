"""A cut with its receipts is one signed document: nothing in it can be altered, added or left out unnoticed."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from klinket.cli.main import klinket
from klinket.controller.app import cuts
from klinket.controller.trust import KeyPurpose
from klinket.domain.errors import CutAltered, InvalidToken
from klinket.wire import control
from klinket.wire.cut_document import sign_document, verify_document
from klinket.wire.paths import CUTS_PATH
from klinket.wire.receipt_token import digest
from tests.eventually import PATIENCE
from tests.unit.controller.running import Running
from tests.unit.controller.test_controller_receipts import answer, ordered

pytestmark = pytest.mark.sqlite_only


@pytest.fixture
async def document(live: Running) -> dict[str, Any]:
    """A revoked key, answered by one of two connectors."""
    network = await live.add_network()
    who = await live.enrol(await live.connector_tokens(await live.add_connector(network, "office-1")))
    await live.add_connector(network, "office-2")
    key, _ = await live.add_key(await live.add_account(resources=[await live.add_resource(network)]))
    async with live.attached(who) as edge:
        await edge.take(control.ConnectorConfiguration)
        await live.revoke_key(key)
        cut = await ordered(live, edge)
        await edge.send(answer(live, who, cut))
        async with asyncio.timeout(PATIENCE):
            while True:
                got = await live.get(f"{CUTS_PATH}/{cut.id}", headers={"X-API-KEY": live.tokens[("read",)]})
                found = dict(got.json())
                if any(receipt["state"] == "answered" for receipt in found["receipts"]):
                    return found


async def test_the_document_says_who_answered_and_who_did_not(live: Running, document: dict[str, Any]) -> None:
    proven = verify_document(document, live.trust.keys[KeyPurpose.AUDIT])
    assert (proven.network, proven.cut, proven.flows) == (live.trust.network, document["id"], 1)
    assert (proven.answered, proven.pending) == (("office-1",), ("office-2",))
    (pending,) = [receipt for receipt in document["receipts"] if receipt["state"] == "pending"]
    assert pending["grants_end_at_ms"] > document["created_at_ms"]


async def test_the_audit_tells_how_a_cut_went_when_all_have_answered(live: Running, document: dict[str, Any]) -> None:
    def events() -> Any:
        return live.read(lambda tx: [row.detail for row in tx.audit.find(action="cut")])

    assert [detail.get("state") for detail in await events()] == [None]  # ordered; one has not answered
    other = [receipt["connector"] for receipt in document["receipts"] if receipt["state"] == "pending"]
    id = await live.read(lambda tx: tx.connectors.find(name=other[0])[0].id)
    await live.write(lambda tx: cuts.answer(tx, document["id"], id, stopped_at_ms=tx.now_ms, took_ms=1.5, flows=[]))
    detail = (await events())[-1]
    assert (detail["state"], detail["connectors"], detail["flows"]) == ("answered", 2, 1)
    told = {one["connector"]: one for one in detail["receipts"]}
    answered = next(receipt for receipt in document["receipts"] if receipt["state"] == "answered")
    assert told["office-1"]["flowsSha256"] == digest(answered["flows"])
    assert (told["office-2"]["tookMs"], told["office-2"]["flows"]) == (1.5, 0)


ALTERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "scope": lambda one: one.update(scope="key other"),
    "time": lambda one: one.update(created_at_ms=one["created_at_ms"] + 1),
    "what, in words": lambda one: one.update(what="the key of somebody else"),
    "time, as text": lambda one: one.update(created_at="2020-01-01T00:00:00.000Z"),
    "a field added": lambda one: one.update(note="all is well"),
    "another's signature": lambda one: one.update(signature=one["signature"][:-8] + "AAAAAAAA"),
    "actor": lambda one: one["actor"].update(type="SYSTEM"),
    "a receipt left out": lambda one: one["receipts"].pop(),
    "a flow left out": lambda one: one["receipts"][0]["flows"].clear(),
    "pending told as answered": lambda one: [receipt.update(state="answered") for receipt in one["receipts"]],
    "took": lambda one: one["receipts"][0].update(took_ms=0.1),
    "no signature": lambda one: one.pop("signature"),
    "no receipts": lambda one: one.pop("receipts"),
}


@pytest.mark.parametrize("what", ALTERED)
async def test_an_altered_document_proves_nothing(live: Running, document: dict[str, Any], what: str) -> None:
    altered = copy.deepcopy(document)
    ALTERED[what](altered)
    with pytest.raises(InvalidToken if what in ("no signature", "no receipts") else CutAltered):
        verify_document(altered, live.trust.keys[KeyPurpose.AUDIT])


async def test_a_document_signed_with_a_key_of_another_purpose_proves_nothing(live: Running, document: dict[str, Any]) -> None:
    forged = {
        **document,
        "signature": sign_document(live.trust.signers[KeyPurpose.CUT], document, network="acme", now=live.clock()),
    }
    with pytest.raises(InvalidToken):
        verify_document(forged, live.trust.keys[KeyPurpose.AUDIT])


async def test_the_controller_cannot_speak_for_a_connector(live: Running, document: dict[str, Any]) -> None:
    """What a connector said is under its own signature as well: a controller in strange hands cannot change it."""
    forged = copy.deepcopy(document)
    for receipt in forged["receipts"]:
        receipt["flows"] = []
    forged["signature"] = sign_document(live.trust.signers[KeyPurpose.AUDIT], forged, network="acme", now=live.clock())
    with pytest.raises(InvalidToken) as caught:
        verify_document(forged, live.trust.keys[KeyPurpose.AUDIT])
    assert "office-1" in caught.value.message


async def test_the_command_verifies_a_file_without_a_controller(live: Running, document: dict[str, Any], tmp_path: Path) -> None:
    keys, file = tmp_path / "jwks.json", tmp_path / "cut.json"
    keys.write_text(json.dumps(live.trust.jwks()))
    words = ["admin", "cut", "verify", str(file), "--keys", str(keys), "--json"]
    file.write_text(json.dumps(document))  # as `cut show --json` writes it
    told = CliRunner().invoke(klinket, words)
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["flows_ended"], found["pending"]) == (1, ["office-2"])
    assert all(re.fullmatch("[a-z_]+", name) for name in found)
    file.write_text(json.dumps({**document, "reason": "cut"}))
    assert isinstance(CliRunner().invoke(klinket, words).exception, CutAltered)
    file.write_text("[")
    assert CliRunner().invoke(klinket, words).exit_code != 0
