"""Logins: a valid key, one assertion once, and refusals that tell only the key's holder what is wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import Engine, event

from klinket.controller import unproven_refusals
from klinket.controller.graphql.global_id import to_global_id
from klinket.controller.login import CLIENT_CERTIFICATE_SECONDS
from klinket.controller.throttle import FAILURE_BURST, RECORD_BURST
from klinket.domain.account_limits import DEFAULTS
from klinket.net.certificate_request import certificate_request
from klinket.wire import assertion, signing
from klinket.wire.key_file import LOGIN_PATH, KeyFile, parse_key_file
from klinket.wire.paths import LOGOUT_PATH
from tests.eventually import eventually
from tests.unit.controller.running import NETWORK, Running


async def key_of(controller: Running, days: int = 0) -> tuple[str, KeyFile]:
    return await controller.add_key(await controller.add_account(), days)


async def attempt(controller: Running, key_file: KeyFile, source: str = "192.0.2.7", **changed: Any) -> Any:
    """Log in with something changed, and return the answer."""
    body = controller.login_body(key_file, signing.generate_private_key(), **changed)
    return await controller.post(LOGIN_PATH, body, source=source)


async def test_a_session_gets_a_certificate_that_names_account_key_and_session(controller: Running) -> None:
    _, key_file = await key_of(controller)
    session = await controller.log_in(key_file)
    certificate = x509.load_pem_x509_certificate(session.answer["certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    account = f"spiffe://{NETWORK}/service-account/{key_file.service_account_id}"
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"{account}/key/{key_file.key_id}/session/{session.id}"]
    assert certificate.public_key() == session.key.public_key()
    assert session.answer["network"] == NETWORK
    lifetime = (session.answer["expires_at_ms"] - session.answer["time_ms"]) / 1000
    assert lifetime == pytest.approx(CLIENT_CERTIFICATE_SECONDS, abs=1)


async def test_nothing_of_a_session_outlives_its_key(controller: Running) -> None:
    _, key_file = await key_of(controller, days=1)
    controller.offset = 86_400 - 100
    session = await controller.log_in(key_file)
    assert (session.answer["expires_at_ms"] - session.answer["time_ms"]) / 1000 == pytest.approx(100, abs=5)
    certificate = x509.load_pem_x509_certificate(session.answer["certificate"].encode())
    assert certificate.not_valid_after_utc.timestamp() <= session.answer["expires_at_ms"] / 1000 + 1


async def test_each_assertion_counts_once(controller: Running) -> None:
    _, key_file = await key_of(controller)
    body = controller.login_body(key_file, signing.generate_private_key())
    assert (await controller.post(LOGIN_PATH, body)).status_code == 200
    answer = await controller.post(LOGIN_PATH, body)
    assert (answer.status_code, answer.json()["code"]) == (401, "assertion-replayed")
    assert len(await controller.read(lambda tx: tx.sessions.find())) == 1


@pytest.mark.parametrize(
    ("changed", "code", "audited"),
    [
        ({"signing_key": signing.generate_private_key()}, "service-key-unknown", "wrong-signature"),
        ({"audience": "https://elsewhere.example/api/v4/headless/login"}, "invalid-token", "invalid-token"),
        ({"typ": assertion.END_TYP}, "invalid-token", "invalid-token"),
        ({"jkt": signing.thumbprint(signing.generate_private_key().public_key())}, "invalid-token", "invalid-token"),
        ({"account": "00000000-0000-4000-8000-000000000000"}, "invalid-token", "invalid-token"),
        ({"request": "no request"}, "certificate-request-invalid", "certificate-request-invalid"),
    ],
    ids=["another key's signature", "another audience", "another kind", "another session key", "another account", "no request"],
)
async def test_a_login_with_something_wrong_is_refused_and_audited(
    controller: Running, changed: dict[str, Any], code: str, audited: str
) -> None:
    _, key_file = await key_of(controller)
    answer = await attempt(controller, key_file, **changed)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    event = await controller.last_event()
    assert (event.action, event.detail) == ("refuse", {"code": audited})
    assert event.targets[0]["type"] == "serviceAccountKey"
    assert await controller.read(lambda tx: tx.sessions.find()) == []


async def test_who_does_not_hold_a_key_cannot_tell_a_wrong_signature_from_an_unknown_or_revoked_key(controller: Running) -> None:
    key, key_file = await key_of(controller)
    stranger = signing.generate_private_key()
    answers = [await attempt(controller, key_file, signing_key=stranger)]
    await controller.revoke_key(key)
    answers.append(await attempt(controller, key_file, signing_key=stranger))
    await controller.change("mutation ($k: ID!) { serviceAccountKeyDelete(id: $k) { ok error } }", k=key)
    answers.append(await attempt(controller, key_file, signing_key=stranger))
    assert len({(answer.status_code, answer.text) for answer in answers}) == 1


@pytest.mark.parametrize("typ", [assertion.LOGIN_TYP, assertion.END_TYP])
async def test_who_does_not_hold_a_key_cannot_tell_it_from_an_unknown_one_by_another_kind_of_token_or_by_the_work(
    controller: Running, monkeypatch: pytest.MonkeyPatch, typ: str
) -> None:
    monkeypatch.setattr(unproven_refusals, "WRITE_SECONDS", 3600.0)  # what is written is written by this test
    _, known = await key_of(controller)
    await controller.audit()
    writes: list[object] = []
    write = controller.store.write

    async def counted(change: Any) -> Any:
        writes.append(change)
        return await write(change)

    monkeypatch.setattr(controller.store, "write", counted)
    statements: list[str] = []

    def look_up(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    told = []
    event.listen(Engine, "before_cursor_execute", look_up)
    try:
        for kid in (known.key_id, "no-such-key"):
            other = dataclasses.replace(known, key_id=kid)
            answer = await attempt(controller, other, signing_key=signing.generate_private_key(), typ=typ)
            told.append((answer.status_code, answer.text, len(writes), [*statements]))
            statements.clear()
    finally:
        event.remove(Engine, "before_cursor_execute", look_up)
    assert told[0] == told[1]
    assert len(told[0][3]) >= 3
    assert told[0][2] == 0  # before the answer
    assert (await controller.audit())[-1].detail == {"code": "wrong-signature"}
    assert len(writes) == 1


async def test_what_is_not_audited_yet_when_the_controller_stops_is_written_then(controller: Running) -> None:
    _, key_file = await key_of(controller)
    await attempt(controller, key_file, signing_key=signing.generate_private_key())
    await controller.controller.unproven_refusals.aclose()
    rows = await controller.read(lambda tx: tx.audit.find())
    assert rows[-1].detail == {"code": "wrong-signature"}


async def test_refusals_are_audited_soon_without_another_request(controller: Running) -> None:
    _, key_file = await key_of(controller)
    await attempt(controller, key_file, signing_key=signing.generate_private_key())

    async def audited() -> bool:
        return (await controller.read(lambda tx: tx.audit.find()))[-1].action == "refuse"

    await eventually(audited)


async def test_more_refusals_than_may_wait_are_written_before_the_answer(
    controller: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unproven_refusals, "MAX_WAITING", 2)
    monkeypatch.setattr(unproven_refusals, "WRITE_SECONDS", 3600.0)
    _, key_file = await key_of(controller)
    for _ in range(3):
        await attempt(controller, key_file, signing_key=signing.generate_private_key())
    rows = await controller.read(lambda tx: tx.audit.find())
    assert [row.action for row in rows].count("refuse") == 2


async def test_the_holder_of_a_key_is_told_what_is_wrong_with_it(controller: Running) -> None:
    key, key_file = await key_of(controller, days=1)
    await controller.revoke_key(key)
    assert (await attempt(controller, key_file)).json()["code"] == "service-key-revoked"
    _, other = await controller.add_key(await controller.add_account("other"), days=1)
    controller.offset = 86_401
    assert (await attempt(controller, other)).json()["code"] == "service-key-expired"


@pytest.mark.parametrize("skew", [-70.0, 70.0])
async def test_a_clock_that_is_off_is_told_as_such(controller: Running, skew: float) -> None:
    _, key_file = await key_of(controller)
    assert (await attempt(controller, key_file, now=controller.clock() + skew)).json()["code"] == "assertion-stale"


async def test_another_grant_type_is_refused_by_its_name(controller: Running) -> None:
    _, key_file = await key_of(controller)
    body = {**controller.login_body(key_file, signing.generate_private_key()), "grant_type": "password"}
    answer = await controller.post(LOGIN_PATH, body)
    assert answer.status_code == 400
    assert "grant_type" in answer.json()["message"]


async def test_a_service_account_logs_in_so_often_whatever_key_it_uses(controller: Running) -> None:
    account = await controller.add_account()
    files = [(await controller.add_key(account, name=name))[1] for name in ("one", "two")]
    request = certificate_request(key := signing.generate_private_key())
    codes = []
    for number in range(DEFAULTS.login_burst + 5):
        body = controller.login_body(files[number % 2], key, request=request)
        answer = await controller.post(LOGIN_PATH, body, source=f"192.0.2.{number % 200}")
        codes.append(answer.status_code)
    assert codes[: DEFAULTS.login_burst] == [200] * DEFAULTS.login_burst
    assert 429 in codes
    assert "all its keys together" in answer.text or answer.status_code == 200


async def test_failures_are_slowed_and_keep_nobody_out_who_holds_the_key(controller: Running) -> None:
    _, key_file = await key_of(controller)
    stranger = signing.generate_private_key()
    for _ in range(FAILURE_BURST):
        assert (await attempt(controller, key_file, signing_key=stranger)).status_code == 401
    answer = await attempt(controller, key_file, signing_key=stranger)
    assert (answer.status_code, answer.json()["code"]) == (429, "throttled")
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await attempt(controller, key_file)).status_code == 200
    assert (await attempt(controller, key_file, signing_key=stranger, source="192.0.2.8")).status_code == 401


async def test_refusals_of_one_key_are_audited_up_to_a_bound(controller: Running) -> None:
    _, key_file = await key_of(controller)
    stranger = signing.generate_private_key()
    for number in range(RECORD_BURST + 5):
        await attempt(controller, key_file, signing_key=stranger, source=f"192.0.2.{number}")
    refused = [event for event in await controller.audit() if event.action == "refuse"]
    assert len(refused) == RECORD_BURST


async def logout(controller: Running, key_file: KeyFile, jkt: str, typ: str = assertion.END_TYP) -> int:
    signed = assertion.sign_assertion(
        signing.SigningKey(key_file.key_id, key_file.private_key),
        key_file.service_account_id,
        controller.config.public_url + LOGOUT_PATH,
        jkt,
        now=controller.clock(),
        jti="x" * 22,
        typ=typ,
    )
    return int((await controller.post(LOGOUT_PATH, {"assertion": signed})).status_code)


async def test_a_logout_ends_the_session_of_that_session_key_and_no_other(controller: Running) -> None:
    _, key_file = await key_of(controller)
    one, other = await controller.log_in(key_file), await controller.log_in(key_file)
    assert await logout(controller, key_file, signing.thumbprint(one.key.public_key())) == 204
    rows = {row.id: row.end_reason for row in await controller.read(lambda tx: tx.sessions.find())}
    assert rows == {one.id: "logout", other.id: None}


async def test_a_logout_answers_the_same_whatever_it_finds(controller: Running) -> None:
    _, key_file = await key_of(controller)
    session = await controller.log_in(key_file)
    jkt = signing.thumbprint(session.key.public_key())
    assert await logout(controller, key_file, jkt, typ=assertion.LOGIN_TYP) == 204
    assert (await controller.post(LOGOUT_PATH, {"assertion": "nonsense"})).status_code == 204
    assert [row.ended_at_ms for row in await controller.read(lambda tx: tx.sessions.find())] == [None]


# ---- limits of an account, seats, canary keys

GENERATE = (
    "mutation ($a: ID!, $s: Int, $e: SeatsExceeded, $c: Boolean) { serviceKeyGenerate(serviceAccountId: $a, expirationTime: 0, "
    'name: "made", seats: $s, seatsExceeded: $e, isCanary: $c) { ok error token entity { id } } }'
)


async def made_key(controller: Running, **use: Any) -> KeyFile:
    answer = await controller.query(GENERATE, extension=True, a=await controller.add_account(), **use)
    return parse_key_file(answer["serviceKeyGenerate"]["token"])


async def metric(controller: Running, name: str) -> float:
    """Return the value of a line of the metrics."""
    text = (await controller.get("/metrics", source="127.0.0.1")).text
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " ")), 0.0)


async def test_an_account_with_limits_of_its_own_is_held_to_them_and_told_which_and_when(controller: Running) -> None:
    _, key_file = await key_of(controller)
    query = "mutation ($a: ID!, $l: AccountLimitsInput!) { accountLimitsSet(serviceAccountId: $a, limits: $l) { ok error } }"
    account = (await controller.query("{ serviceAccounts { edges { node { id } } } }"))["serviceAccounts"]["edges"][0]["node"][
        "id"
    ]
    await controller.query(query, extension=True, a=account, l={"loginBurst": 2, "loginsPerSecond": 0.1})
    assert [(await attempt(controller, key_file)).status_code for _ in range(2)] == [200, 200]
    answer = await attempt(controller, key_file)
    assert (answer.status_code, answer.json()["code"]) == (429, "throttled")
    assert "2 at once and 0.1 a second" in answer.json()["message"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 10
    event = await controller.last_event()
    assert (event.action, event.detail) == ("refuse", {"code": "throttled", "limit": "logins"})
    assert await metric(controller, 'klinket_throttled_total{limit="logins"}') == 1


async def test_a_second_login_with_a_key_that_refuses_beyond_its_seat_is_told_when_to_come_again(controller: Running) -> None:
    key_file = await made_key(controller, s=1, e="REFUSE")
    await controller.log_in(key_file)
    answer = await attempt(controller, key_file)
    assert (answer.status_code, answer.json()["code"]) == (429, "throttled")
    assert "has one seat" in answer.json()["message"]
    assert 50 <= int(answer.headers["Retry-After"]) <= 60
    assert (await controller.last_event()).detail == {"code": "throttled", "limit": "seats"}
    assert await metric(controller, 'klinket_throttled_total{limit="seats"}') == 1


@pytest.mark.parametrize(
    ("limit", "limits", "key"),
    [
        ("logins", {"loginBurst": 1, "loginsPerSecond": 0.1}, {}),
        ("sessions", {"maxSessions": 1}, {}),
        ("seats", {}, {"s": 1, "e": "REFUSE"}),
    ],
)
async def test_a_refusal_for_a_limit_says_which_and_when_and_is_shown_wherever_limits_are(
    controller: Running, limit: str, limits: dict[str, float], key: dict[str, Any]
) -> None:
    key_file = await made_key(controller, **key)
    (row,) = await controller.read(lambda tx: tx.service_accounts.find())
    account = to_global_id("ServiceAccount", row.id)
    query = "mutation ($a: ID!, $l: AccountLimitsInput!) { accountLimitsSet(serviceAccountId: $a, limits: $l) { ok error } }"
    await controller.query(query, extension=True, a=account, l=limits)
    shown = "query ($a: ID!) { accountLimits(serviceAccountId: $a) { throttledLogins } }"
    explained = 'query ($a: ID!) { explain(serviceAccountId: $a, host: "db.internal", port: 1) { steps { evidence } } }'

    async def told() -> tuple[int, str]:
        count = (await controller.query(shown, extension=True, a=account))["accountLimits"]["throttledLogins"]
        steps = (await controller.query(explained, extension=True, a=account))["explain"]["steps"]
        (line,) = [line for step in steps for line in step["evidence"] if line.startswith("logins refused")]
        return count, line.rpartition(": ")[2]

    assert await told() == (0, "0")
    assert (await attempt(controller, key_file)).status_code == 200
    answer = await attempt(controller, key_file)
    assert (answer.status_code, answer.json()["code"]) == (429, "throttled")
    assert {"logins": "logs in too often", "sessions": "its limit is 1", "seats": "has one seat"}[limit] in answer.json()[
        "message"
    ]
    assert int(answer.headers["Retry-After"]) >= 1
    assert await told() == (1, f"1 ({limit} 1)")
    assert (await controller.last_event()).detail == {"code": "throttled", "limit": limit}
    assert await metric(controller, f'klinket_throttled_total{{limit="{limit}"}}') == 1


@pytest.mark.parametrize(
    ("changed", "signed"),
    [
        ({}, True),
        ({"signing_key": signing.generate_private_key()}, False),
        ({"audience": "https://elsewhere.example/"}, False),
        ({"now": 1.0}, True),
        ({"request": "no request"}, True),
    ],
    ids=["as it should be", "another key's signature", "another audience", "stale", "no request"],
)
async def test_a_canary_key_is_answered_as_if_there_were_none_and_raises_an_alarm(
    controller: Running, changed: dict[str, Any], signed: bool
) -> None:
    canary = await made_key(controller, c=True)
    unknown = dataclasses.replace(canary, key_id="key-000000000000000000000000")
    answers = [await attempt(controller, one, **changed) for one in (canary, unknown)]
    assert len({(answer.status_code, answer.text) for answer in answers}) == 1
    assert answers[0].json()["code"] == "service-key-unknown"
    assert {*answers[0].headers} == {*answers[1].headers}
    (event,) = [event for event in await controller.audit() if event.action in ("alarm", "refuse")]
    assert (event.action, event.detail) == ("alarm", {"code": "canary-key", "attempt": "login", "signed": signed})
    assert (event.targets[0]["name"], event.actor["source"]) == ("made", "192.0.2.7")
    assert await controller.read(lambda tx: tx.sessions.find()) == []
    assert await metric(controller, 'klinket_canary_alarms_total{attempt="login"}') == 1


async def test_an_address_that_has_failed_too_often_still_raises_the_alarm(controller: Running) -> None:
    canary = await made_key(controller, c=True)
    for _ in range(FAILURE_BURST + 2):
        answer = await attempt(controller, dataclasses.replace(canary, key_id="key-000000000000000000000000"))
    assert answer.status_code == 429
    for _ in range(FAILURE_BURST):
        assert (await attempt(controller, canary)).status_code == 401
    alarms = [event for event in await controller.audit() if event.action == "alarm"]
    assert len(alarms) == RECORD_BURST
    assert (await attempt(controller, canary)).status_code == 429
    assert await metric(controller, 'klinket_canary_alarms_total{attempt="login"}') == FAILURE_BURST + 1


async def test_a_canary_key_still_raises_the_alarm_when_it_was_revoked_and_ends_nothing(controller: Running) -> None:
    canary = await made_key(controller, c=True)
    id = (await controller.query("{ serviceKeys { edges { node { id } } } }", extension=True))["serviceKeys"]["edges"][0]["node"][
        "id"
    ]
    await controller.revoke_key(id)
    assert (await attempt(controller, canary)).json()["code"] == "service-key-unknown"
    assert await logout(controller, canary, "x" * 43) == 204
    attempts = [event.detail["attempt"] for event in await controller.audit() if event.action == "alarm"]
    assert attempts == ["login", "logout"]
