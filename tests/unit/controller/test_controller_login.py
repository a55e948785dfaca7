"""Logins: a valid key, one assertion once, and refusals that tell only the key's holder what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509

from klinket.controller.login import CLIENT_CERTIFICATE_SECONDS
from klinket.controller.throttle import FAILURE_BURST, RECORD_BURST
from klinket.domain.account_limits import DEFAULTS
from klinket.net.certificate_request import certificate_request
from klinket.wire import assertion, signing
from klinket.wire.key_file import LOGIN_PATH, KeyFile
from klinket.wire.paths import LOGOUT_PATH
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
