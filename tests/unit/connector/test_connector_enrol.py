"""What a connector makes of each answer to its enrolment: an end for good only where trying again changes nothing."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from klinket.connector import enrol
from klinket.connector.config import ConnectorConfig
from klinket.domain.errors import (
    ConnectorTokensDead,
    ControllerUnreachable,
    EnrolledElsewhere,
    KlinketError,
    Throttled,
)
from klinket.net.request import Answer
from klinket.wire import signing

GOOD: dict[str, Any] = {
    "connector": 7, "network": "acme", "certificate": "pem", "access_token": "token", "expires_at_ms": 2, "time_ms": 1,
}  # fmt: skip


async def answered(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, status: int, body: dict[str, Any]) -> enrol.Credentials:
    async def post(*_: Any, **__: Any) -> Answer:
        return Answer(status, body)

    monkeypatch.setattr(enrol, "post", post)
    config = ConnectorConfig(controller="https://controller.example", access_token="a", refresh_token="r", state=tmp_path)
    return await enrol.enrol(config, signing.generate_private_key(), ssl.create_default_context())


@pytest.mark.parametrize(
    ("status", "code", "kind", "is_final"),
    [
        (410, "connector-tokens-dead", ConnectorTokensDead, True),
        (410, "", ConnectorTokensDead, True),
        (409, "connector-enrolled-elsewhere", EnrolledElsewhere, True),
        (409, "connector-too-old", enrol.EnrolmentRefused, True),
        (400, "invalid-input", enrol.EnrolmentRefused, True),
        (429, "throttled", Throttled, False),
        (503, "store-unreachable", ControllerUnreachable, False),
        (503, "store-overloaded", ControllerUnreachable, False),
        (500, "internal", ControllerUnreachable, False),
        (503, "connector-enrolled-elsewhere", ControllerUnreachable, False),
        (403, "", ControllerUnreachable, False),  # a gateway's page
        (404, "not-found", ControllerUnreachable, False),
        (200, "", ControllerUnreachable, False),
    ],
)
async def test_an_answer_and_what_it_means(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, status: int, code: str, kind: type[KlinketError], is_final: bool
) -> None:
    body = {"code": code, "message": "so it is", "retry_after": 3} if code else {}
    with pytest.raises(KlinketError) as raised:
        await answered(monkeypatch, tmp_path, status, body)
    assert type(raised.value) is kind
    assert isinstance(raised.value, enrol.FINAL) is is_final
    if code and not is_final:
        assert (raised.value.message, raised.value.retry_after) == ("so it is", 3.0)


async def test_a_good_answer_becomes_credentials_that_are_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    found = await answered(monkeypatch, tmp_path, 200, {**GOOD, "access_token": "s3cret"})
    assert (found.connector, found.network, found.expires_at_ms) == (7, "acme", 2)
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize("name", GOOD)
async def test_an_answer_that_lacks_something_is_not_understood(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, name: str
) -> None:
    with pytest.raises(ControllerUnreachable):
        await answered(monkeypatch, tmp_path, 200, {key: value for key, value in GOOD.items() if key != name})
