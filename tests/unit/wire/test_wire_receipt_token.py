"""Receipts, beyond what holds for every token: who signed, what for, and that the flows are the signed ones."""

from __future__ import annotations

import json

import msgspec
import pytest

from klinket.domain.cut import Cut, CutScope
from klinket.domain.errors import InvalidToken
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ConnectorId, CutId, Kid
from klinket.wire import signing
from klinket.wire.control import CutFlow
from klinket.wire.identity import ConnectorIdentity
from klinket.wire.receipt_token import ReceiptClaims, digest, sign_receipt, verify_receipt
from klinket.wire.signing import MAX_TOKEN_CHARS
from tests.unit.wire.conftest import NOW

KEY = signing.generate_private_key()
JKT = signing.thumbprint(KEY.public_key())
OFFICE = ConnectorIdentity("acme", ConnectorId(3))
CUT = Cut(CutId(5), CutScope.of_key(Kid("key-1")), 2, 7, FlowFailure.SERVICE_KEY_REVOKED, NOW)


def flow(number: int, host: str = "dé.internal", after: float = 0.137) -> CutFlow:
    return CutFlow(
        flow=f"{number:032x}", session="s" * 22, service_account="a", key="key-1", resource=1, host=host, port=22,
        protocol="tcp", stopped_after_ms=after,
    )  # fmt: skip


def sign(*flows: CutFlow) -> str:
    return sign_receipt(KEY, OFFICE, CUT, flows, stopped_at=NOW + 0.25, took=0.0015)


def test_a_receipt_says_what_was_cut_and_when_it_stopped() -> None:
    flows = [flow(1), flow(2)]
    said = verify_receipt(sign(*flows), OFFICE, jkt=JKT, now=NOW)
    expected = digest([msgspec.to_builtins(one) for one in flows])
    assert said == ReceiptClaims(5, 2, 7, round((NOW + 0.25) * 1000), 1500, 2, expected)


def test_a_receipt_is_of_the_connector_with_the_key_it_enrolled() -> None:
    token = sign()
    for identity in (ConnectorIdentity("acme", ConnectorId(4)), ConnectorIdentity("other", ConnectorId(3))):
        with pytest.raises(InvalidToken):
            verify_receipt(token, identity, jkt=JKT, now=NOW)
    other = signing.thumbprint(signing.generate_private_key().public_key())
    with pytest.raises(InvalidToken, match="another key"):
        verify_receipt(token, OFFICE, jkt=other, now=NOW)


@pytest.mark.parametrize(
    "changed", [[], [flow(1)], [flow(2), flow(1)], [flow(1), flow(2, after=0.2)], [flow(1), flow(2), flow(3)]]
)
def test_other_flows_have_another_digest(changed: list[CutFlow]) -> None:
    said = verify_receipt(sign(flow(1), flow(2)), OFFICE, jkt=JKT, now=NOW)
    assert digest([msgspec.to_builtins(one) for one in changed]) != said.flows_sha256


def test_the_digest_outlives_being_stored_as_json() -> None:
    flows = [msgspec.to_builtins(flow(n, after=n / 7)) for n in range(20)]
    assert digest(json.loads(json.dumps(flows))) == digest(msgspec.json.decode(msgspec.json.encode(flows))) == digest(flows)


def test_a_receipt_of_many_flows_stays_short() -> None:
    assert len(sign(*(flow(n) for n in range(1000)))) < MAX_TOKEN_CHARS // 10
