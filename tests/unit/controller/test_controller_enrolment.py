"""Enrolment: tokens bind to one key, once; a copy of them raises an alarm."""

from __future__ import annotations

import logging

import pytest
from cryptography import x509

from klinket.controller import enrolment
from klinket.net.certificate_request import certificate_request
from klinket.wire import signing
from klinket.wire.paths import ENROL_PATH
from tests.unit.controller.running import NETWORK, Running


async def tokens_of(controller: Running) -> tuple[str, dict[str, str]]:
    connector = await controller.add_connector(await controller.add_network(), "office-1")
    return connector, await controller.connector_tokens(connector)


async def test_a_connector_gets_a_certificate_for_its_own_key(controller: Running) -> None:
    _, tokens = await tokens_of(controller)
    enrolled = await controller.enrol(tokens)
    certificate = x509.load_pem_x509_certificate(enrolled.answer["certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://{NETWORK}/connector/{enrolled.id}"]
    assert certificate.public_key() == enrolled.key.public_key()
    assert (enrolled.answer["name"], enrolled.answer["network"]) == ("office-1", NETWORK)


async def test_the_same_key_enrols_again_and_that_is_recorded_once(controller: Running) -> None:
    _, tokens = await tokens_of(controller)
    first = await controller.enrol(tokens)
    await controller.enrol(tokens, first.key)
    assert [row.action for row in await controller.audit()].count("enrol") == 1


async def test_another_key_with_the_same_tokens_is_refused_with_an_alarm(
    controller: Running, caplog: pytest.LogCaptureFixture
) -> None:
    _, tokens = await tokens_of(controller)
    await controller.enrol(tokens)
    request = certificate_request(signing.generate_private_key())
    answer = await controller.post(ENROL_PATH, {**tokens, "certificate_request": request}, source="198.51.100.9")
    assert (answer.status_code, answer.json()["code"]) == (409, "connector-enrolled-elsewhere")
    event = await controller.last_event()
    assert (event.action, event.detail) == ("refuse", {"alarm": "connector-enrolled-elsewhere"})
    alarms = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert ["198.51.100.9" in record.getMessage() for record in alarms] == [True]
    assert not any(secret in caplog.text for secret in tokens.values())


async def test_new_tokens_kill_the_old_ones_and_enrol_another_key(controller: Running) -> None:
    connector, old = await tokens_of(controller)
    await controller.enrol(old)
    new = await controller.connector_tokens(connector)
    request = certificate_request(signing.generate_private_key())
    answer = await controller.post(ENROL_PATH, {**old, "certificate_request": request})
    assert (answer.status_code, answer.json()["code"]) == (410, "connector-tokens-dead")
    await controller.enrol(new)


async def test_tokens_of_two_connectors_do_not_mix(controller: Running) -> None:
    network = await controller.add_network()
    one, other = [await controller.connector_tokens(await controller.add_connector(network, name)) for name in ("a", "b")]
    mixed = {"access_token": one["access_token"], "refresh_token": other["refresh_token"]}
    request = certificate_request(signing.generate_private_key())
    assert (await controller.post(ENROL_PATH, {**mixed, "certificate_request": request})).status_code == 410


async def test_a_request_that_is_none_uses_nothing_up(controller: Running) -> None:
    _, tokens = await tokens_of(controller)
    answer = await controller.post(ENROL_PATH, {**tokens, "certificate_request": "nonsense"})
    assert answer.json()["code"] == "certificate-request-invalid"
    await controller.enrol(tokens)


async def test_tokens_that_are_not_valid_are_slowed_by_the_address_and_valid_ones_are_not(controller: Running) -> None:
    _, tokens = await tokens_of(controller)
    request = certificate_request(signing.generate_private_key())
    bad = {"access_token": "kl_ca_none", "refresh_token": "kl_cr_none", "certificate_request": request}
    answers = [(await controller.post(ENROL_PATH, bad)).status_code for _ in range(enrolment.FAILED_ENROLMENTS + 2)]
    assert answers == [410] * enrolment.FAILED_ENROLMENTS + [429, 429]
    assert (await controller.post(ENROL_PATH, bad, source="198.51.100.9")).status_code == 410
    await controller.enrol(tokens)  # from the very address


async def test_one_connectors_enrolments_are_slowed_and_those_from_elsewhere_are_not(controller: Running) -> None:
    _, tokens = await tokens_of(controller)
    key = (await controller.enrol(tokens)).key
    body = {**tokens, "certificate_request": certificate_request(key)}
    answers = [await controller.post(ENROL_PATH, body) for _ in range(enrolment.ENROLMENT_BURST)]
    assert [answer.status_code for answer in answers] == [200] * (enrolment.ENROLMENT_BURST - 1) + [429]
    assert answers[-1].json()["retry_after"] > 0
    assert (await controller.post(ENROL_PATH, body, source="198.51.100.9")).status_code == 200


async def test_stolen_tokens_with_another_key_do_not_fill_the_audit(controller: Running) -> None:
    _, tokens = await tokens_of(controller)
    await controller.enrol(tokens)
    body = {**tokens, "certificate_request": certificate_request(signing.generate_private_key())}
    for number in range(enrolment.RECORD_BURST + 5):
        answer = await controller.post(ENROL_PATH, body, source=f"198.51.100.{number}")
        assert answer.status_code == 409
    alarms = [row.action for row in await controller.audit()].count("refuse")
    assert enrolment.RECORD_BURST <= alarms < enrolment.RECORD_BURST + 5
