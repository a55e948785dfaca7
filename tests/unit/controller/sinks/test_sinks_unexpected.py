"""An error that nobody thought of is noted at the sink, and the next try waits as after any other."""

from __future__ import annotations

import pytest

from klinket.controller.sinks import webhook
from tests.unit.controller.running import Running
from tests.unit.controller.sinks.conftest import made, round_of, state

HOOK = 'name: "s", kind: WEBHOOK, streams: [AUDIT], url: "https://a.example/", secret: "the-shared-secret"'


@pytest.mark.parametrize("error", [AttributeError, KeyError, LookupError, RecursionError, MemoryError])
async def test_any_error_of_a_delivery_is_noted_and_backed_off(
    controller: Running, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    tries = []

    def fails(_: object, secret: bytes, __: object) -> None:
        tries.append(secret)
        raise error("text with the-shared-secret in it")

    monkeypatch.setattr(webhook, "deliver", fails)
    await made(controller, HOOK)
    await round_of(controller)
    await round_of(controller)
    assert len(tries) == 1, "it waits before it tries again"
    told = await state(controller)
    assert told["attempts"] == 1
    assert told["nextTryAt"] is not None
    assert told["lastError"]
    assert "the-shared-secret" not in told["lastError"]
    controller.offset += 2
    await round_of(controller)
    assert (await state(controller))["attempts"] == 2
