"""A receipt counts when its connector has signed it, with what it says; anything else leaves the cut pending."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from klinket.controller.app import cuts
from klinket.controller.trust import KeyPurpose
from klinket.domain.cut import Cut
from klinket.wire import control, signing
from klinket.wire.cut_token import verify_cut
from klinket.wire.identity import ConnectorIdentity
from klinket.wire.receipt_token import TYP, digest, sign_receipt, verify_receipt
from tests.eventually import PATIENCE
from tests.unit.controller.running import Enrolled, Running

FLOW = control.CutFlow(
    flow="f" * 32, session="s" * 22, service_account="a", key="k", resource=1, host="db.internal", port=5432,
    protocol="tcp", stopped_after_ms=0.123,
)  # fmt: skip


async def ordered(live: Running, edge: Any) -> Cut:
    """Take the cut that revoking a key has ordered."""
    message = await edge.wait_for(control.Cut)
    keys = live.trust.keys[KeyPurpose.CUT]
    return verify_cut(message.token, keys, network=live.trust.network, now=live.clock())


def answer(
    live: Running, who: Enrolled, cut: Cut, key: signing.PrivateKey | None = None, flow: control.CutFlow = FLOW
) -> control.CutReceipt:
    identity = ConnectorIdentity(live.trust.network, who.id)  # type: ignore[arg-type]
    at = live.clock()
    token = sign_receipt(key or who.key, identity, cut, [flow], stopped_at=at, took=0.0021)
    return control.CutReceipt(id=cut.id, stopped_at_ms=round(at * 1000), took_ms=2.1, flows=[flow], token=token)


async def receipt(live: Running, cut: Cut) -> dict[str, Any]:
    (found,) = (await live.read(lambda tx: cuts.receipt(tx, cut.id)))["receipts"]
    return dict(found)


async def test_only_a_receipt_that_its_connector_has_signed_counts(live: Running) -> None:
    network = await live.add_network()
    who = await live.enrol(await live.connector_tokens(await live.add_connector(network)))
    resource = await live.add_resource(network)
    key, _ = await live.add_key(await live.add_account(resources=[resource]))
    async with live.attached(who) as edge:
        await edge.take(control.ConnectorConfiguration)
        await live.revoke_key(key)
        cut = await ordered(live, edge)
        right = answer(live, who, cut)
        replace = msgspec.structs.replace
        for wrong in (
            replace(right, token=""),
            replace(right, token="x.y.z"),
            replace(right, flows=[]),
            replace(right, stopped_at_ms=right.stopped_at_ms - 1000),
            answer(live, who, cut, signing.generate_private_key()),
        ):
            await edge.send(wrong)
            assert await edge.is_alive()
            assert (await receipt(live, cut))["state"] == cuts.PENDING
        await edge.send(right)
        async with asyncio.timeout(PATIENCE):
            while (await receipt(live, cut))["state"] == cuts.PENDING:
                await asyncio.sleep(0.01)
    stored = await receipt(live, cut)
    assert (stored["took_ms"], stored["stopped_at_ms"]) == (2.1, right.stopped_at_ms)
    # what is stored proves itself, whoever reads it
    identity = ConnectorIdentity(live.trust.network, who.id)  # type: ignore[arg-type]
    said = verify_receipt(stored["token"], identity, jkt=signing.thumbprint(who.key.public_key()), now=live.clock())
    assert said.flows_sha256 == digest(stored["flows"])
    assert (said.cut, said.epoch, said.revision) == (cut.id, cut.epoch, cut.revision)


@pytest.mark.parametrize("field", ["epoch", "revision"])
async def test_a_receipt_is_of_the_cut_it_names(live: Running, field: str) -> None:
    network = await live.add_network()
    who = await live.enrol(await live.connector_tokens(await live.add_connector(network)))
    resource = await live.add_resource(network)
    key, _ = await live.add_key(await live.add_account(resources=[resource]))
    async with live.attached(who) as edge:
        await edge.take(control.ConnectorConfiguration)
        await live.revoke_key(key)
        cut = await ordered(live, edge)
        other = Cut(
            cut.id,
            cut.scope,
            cut.epoch + (field == "epoch"),
            cut.revision + (field == "revision"),
            cut.reason,
            cut.issued_at,
        )
        await edge.send(answer(live, who, other))
        assert await edge.is_alive()
        assert (await receipt(live, cut))["state"] == cuts.PENDING


HOSTILE: list[dict[str, Any]] = [
    {"port": 1 << 40}, {"port": -1}, {"resource": 1 << 70}, {"resource": 0}, {"host": "db\x1b[2J"}, {"host": "x" * 254},
    {"session": "a\u202eb"}, {"key": "k" * 65}, {"protocol": "quic"}, {"stopped_after_ms": -1.0}, {"stopped_after_ms": 1e300},
]  # fmt: skip


async def test_a_receipt_that_nobody_could_be_shown_is_as_good_as_none(live: Running) -> None:
    network = await live.add_network()
    who = await live.enrol(await live.connector_tokens(await live.add_connector(network)))
    key, _ = await live.add_key(await live.add_account(resources=[await live.add_resource(network)]))
    identity = ConnectorIdentity(live.trust.network, who.id)  # type: ignore[arg-type]
    async with live.attached(who) as edge:
        await edge.take(control.ConnectorConfiguration)
        await live.revoke_key(key)
        cut = await ordered(live, edge)
        for changed in HOSTILE:
            await edge.send(answer(live, who, cut, flow=msgspec.structs.replace(FLOW, **changed)))
            assert await edge.is_alive()
        now = live.clock()
        claims = {
            "iss": identity.network, "sub": identity.uri, "aud": "controller", "iat": int(now), "exp": int(now) + 60,
            "cut": cut.id, "epoch": cut.epoch, "rev": cut.revision, "flows": 0, "flows_sha256": digest([]),
        }  # fmt: skip
        header = {"jwk": signing.public_jwk(who.key.public_key())}
        for moment, took_us in ((1 << 60, 1), (-1, 1), (253_402_300_800_000, 1), (1, -1), (1, 1 << 62)):
            told = {**claims, "stopped_at_ms": moment, "took_us": took_us}
            token = signing.sign(signing.SigningKey("self", who.key), TYP, told, header)
            await edge.send(control.CutReceipt(id=cut.id, stopped_at_ms=moment, took_ms=0.001, token=token))
            assert await edge.is_alive()
        assert (await receipt(live, cut))["state"] == cuts.PENDING
