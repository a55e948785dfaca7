"""Keys beyond the contract: last use, own public keys, rotation, expiry; and ending a key with itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from klinket.controller.key_revocation import FAILED_REVOCATIONS
from klinket.wire import assertion, signing
from klinket.wire.key_file import KeyFile, parse_key_file
from klinket.wire.paths import REVOKE_PATH
from tests.unit.controller.running import Running

FIELDS = (
    "id name status serviceAccountId serviceAccountName createdBy { type name } expiresAt origin keyId thumbprint isIdle "
    "lastUse { time hostname address clientVersion } replacesId overlapEndsAt"
)
LIST = f"query ($f: ServiceKeyFilterInput) {{ serviceKeys(filter: $f) {{ totalCount edges {{ node {{ {FIELDS} }} }} }} }}"
REGISTER = (
    "mutation ($a: ID!, $p: String!, $d: Int!) { serviceKeyRegister(serviceAccountId: $a, publicKey: $p, expirationTime: $d) "
    f"{{ ok error keyFile entity {{ {FIELDS} }} }} }}"
)
ROTATE = (
    "mutation ($k: ID!, $h: Int, $p: String) { serviceKeyRotate(id: $k, expirationTime: 90, overlapHours: $h, publicKey: $p) "
    f"{{ ok error token entity {{ {FIELDS} }} }} }}"
)


async def keys(controller: Running, **filter: Any) -> list[dict[str, Any]]:
    answer = await controller.query(LIST, extension=True, f=filter or None)
    return [edge["node"] for edge in answer["serviceKeys"]["edges"]]


async def changed(controller: Running, query: str, **variables: Any) -> dict[str, Any]:
    (payload,) = (await controller.query(query, extension=True, **variables)).values()
    return dict(payload)


def own_pair() -> tuple[signing.PrivateKey, str]:
    private = signing.generate_private_key()
    return private, signing.public_key_to_pem(private.public_key())


async def test_the_last_use_is_told_with_host_address_and_version(controller: Running) -> None:
    account = await controller.add_account()
    key, key_file = await controller.add_key(account)
    (node,) = await keys(controller)
    assert (node["id"], node["lastUse"], node["isIdle"], node["origin"]) == (key, None, False, "CONTROLLER")
    assert (node["serviceAccountId"], node["serviceAccountName"], node["keyId"]) == (account, "ci", key_file.key_id)
    assert node["createdBy"]["type"] == "API"
    await controller.log_in(key_file)
    (node,) = await keys(controller)
    assert node["lastUse"]["hostname"] == "runner-1"
    assert (node["lastUse"]["address"], node["lastUse"]["clientVersion"]) == ("192.0.2.7", "0.1.0")


async def test_a_key_nobody_uses_is_idle_after_30_days(controller: Running) -> None:
    account = await controller.add_account()
    _, used = await controller.add_key(account, name="used")
    await controller.add_key(account, name="forgotten")
    controller.offset = 31 * 86_400
    await controller.log_in(used)
    assert [node["name"] for node in await keys(controller, isIdle=True)] == ["forgotten"]
    assert [node["name"] for node in await keys(controller, isIdle=False)] == ["used"]


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        ({}, ["year", "month", "never", "revoked"]),
        ({"expiringWithinDays": 30}, ["month"]),
        ({"expiringWithinDays": 366}, ["month", "year"]),
        ({"expiringWithinDays": 0}, []),
        ({"status": ["REVOKED"]}, ["revoked"]),
        ({"status": ["ACTIVE", "EXPIRED"]}, ["year", "month", "never"]),
        (dict.fromkeys(("status", "expiringWithinDays", "isIdle", "serviceAccountId")), ["year", "month", "never", "revoked"]),
        ({"serviceAccountId": "U2VydmljZUFjY291bnQ6OTk="}, []),
        ({"serviceAccountId": "nonsense"}, []),
    ],
)
async def test_keys_of_all_accounts_are_filtered(controller: Running, filter: dict[str, Any], names: list[str]) -> None:
    account = await controller.add_account()
    for days, name in ((365, "year"), (30, "month"), (0, "never"), (60, "revoked")):
        key, _ = await controller.add_key(account, days, name)
    await controller.revoke_key(key)
    assert [node["name"] for node in await keys(controller, **filter)] == names


async def test_an_own_public_key_logs_in_and_its_private_half_was_never_at_the_controller(controller: Running) -> None:
    account = await controller.add_account()
    private, public = own_pair()
    payload = await changed(controller, REGISTER, a=account, p=public, d=30)
    assert payload["ok"] is True
    assert payload["entity"]["origin"] == "OWNER"
    assert payload["entity"]["thumbprint"] == signing.thumbprint(private.public_key())
    document = json.loads(payload["keyFile"])
    assert document["private_key"] == ""
    document["private_key"] = signing.private_key_to_pem(private)
    await controller.log_in(parse_key_file(json.dumps(document)))
    assert signing.private_key_to_pem(private).encode() not in controller.everything_stored()


@pytest.mark.parametrize(
    ("public", "told"),
    [
        ("", "not an ECDSA P-256 public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not an ECDSA P-256 public key"),
        ("schlüssel", "not an ECDSA P-256 public key"),
        ("A" * 5_000, "longer than 4096"),
        (signing.private_key_to_pem(signing.generate_private_key()), "holds a private key"),
    ],
    ids=["empty", "nonsense", "not ASCII", "long", "private"],
)
async def test_what_is_no_public_key_is_refused_and_not_repeated(controller: Running, public: str, told: str) -> None:
    account = await controller.add_account()
    payload = await changed(controller, REGISTER, a=account, p=public, d=30)
    assert payload["ok"] is False
    assert told in payload["error"]
    assert "AAAA" not in payload["error"]
    assert await keys(controller) == []


async def test_a_rotation_hands_over_at_the_first_login_with_the_new_key(controller: Running) -> None:
    account = await controller.add_account()
    key, old = await controller.add_key(account)
    payload = await changed(controller, ROTATE, k=key, h=24)
    assert payload["entity"]["replacesId"] == key
    new = parse_key_file(payload["token"])
    await controller.log_in(old)
    await controller.log_in(new)
    assert [(node["name"], node["status"], node["replacesId"]) for node in await keys(controller)] == [
        ("runner", "REVOKED", None),
        ("runner", "ACTIVE", None),
    ]
    missed = await changed(controller, ROTATE, k=key, h=24)
    assert missed["ok"] is False
    assert missed["token"] is None


async def test_a_rotation_takes_in_an_own_public_key(controller: Running) -> None:
    account = await controller.add_account()
    key, _ = await controller.add_key(account)
    payload = await changed(controller, ROTATE, k=key, p=own_pair()[1])
    assert payload["entity"]["origin"] == "OWNER"
    assert json.loads(payload["token"])["private_key"] == ""


# ---- ending a key with itself


def end_assertion(controller: Running, key_file: KeyFile, **changes: Any) -> str:
    private = changes.get("private_key", key_file.private_key)
    return assertion.sign_assertion(
        signing.SigningKey(changes.get("kid", key_file.key_id), private),
        key_file.service_account_id,
        changes.get("audience", key_file.revoke_url),
        signing.thumbprint(private.public_key()),
        now=controller.clock(),
        jti="j",
        typ=changes.get("typ", assertion.REVOKE_TYP),
    )


async def test_whoever_holds_a_key_can_end_it(controller: Running) -> None:
    network = await controller.add_network()
    await controller.add_connector(network)
    account = await controller.add_account(resources=[await controller.add_resource(network)])
    key, key_file = await controller.add_key(account)
    await controller.log_in(key_file)
    answer = await controller.post(REVOKE_PATH, {"assertion": end_assertion(controller, key_file)})
    assert (answer.status_code, answer.content) == (204, b"")
    (node,) = await keys(controller)
    assert (node["id"], node["status"]) == (key, "REVOKED")
    assert len(await controller.read(lambda tx: tx.cuts.find())) == 1
    again = await controller.post(REVOKE_PATH, {"assertion": end_assertion(controller, key_file)})
    assert again.status_code == 204


@pytest.mark.parametrize(
    "changes",
    [
        {"typ": assertion.LOGIN_TYP},
        {"typ": assertion.END_TYP},
        {"audience": "login"},
        {"private_key": "other"},
        {"kid": "unknown"},
    ],
    ids=str,
)
async def test_nothing_else_ends_a_key_and_the_answer_tells_nothing(controller: Running, changes: dict[str, Any]) -> None:
    account = await controller.add_account()
    _, key_file = await controller.add_key(account)
    if changes.get("audience") == "login":
        changes = {"audience": key_file.login_url}
    if changes.get("private_key") == "other":
        changes = {"private_key": signing.generate_private_key()}
    answer = await controller.post(REVOKE_PATH, {"assertion": end_assertion(controller, key_file, **changes)})
    assert (answer.status_code, answer.content) == (204, b"")
    assert [node["status"] for node in await keys(controller)] == ["ACTIVE"]


async def test_a_key_ends_only_itself(controller: Running) -> None:
    account = await controller.add_account()
    _, mine = await controller.add_key(account, name="mine")
    _, other = await controller.add_key(account, name="other")
    await controller.post(REVOKE_PATH, {"assertion": end_assertion(controller, mine, kid=other.key_id)})
    await controller.post(REVOKE_PATH, {"assertion": end_assertion(controller, mine)})
    assert [(node["name"], node["status"]) for node in await keys(controller)] == [("mine", "REVOKED"), ("other", "ACTIVE")]


async def test_revocations_that_end_nothing_are_slowed_by_the_address_whatever_key_they_name(controller: Running) -> None:
    account = await controller.add_account()
    _, key_file = await controller.add_key(account)
    stranger = signing.generate_private_key()

    async def status(kid: str, key: Any = stranger, source: str = "192.0.2.7") -> int:
        signed = end_assertion(controller, key_file, kid=kid, private_key=key)
        return int((await controller.post(REVOKE_PATH, {"assertion": signed}, source=source)).status_code)

    for _ in range(FAILED_REVOCATIONS + 5):  # what ends a key, or ended it before, does not count
        assert await status(key_file.key_id, key_file.private_key) == 204
    kids = [f"unknown-{number}" for number in range(FAILED_REVOCATIONS - 1)] + [key_file.key_id, "unknown", key_file.key_id]
    assert [await status(kid) for kid in kids] == [204] * FAILED_REVOCATIONS + [429, 429]
    assert await status("unknown", source="192.0.2.8") == 204
    assert await status(key_file.key_id, key_file.private_key) == 204  # nobody's failures keep out who holds a key


async def test_a_body_that_is_none_is_told_and_many_failures_are_slowed(controller: Running) -> None:
    assert (await controller.post(REVOKE_PATH, {"nothing": 1})).status_code == 400
    answers = [(await controller.post(REVOKE_PATH, {"assertion": "x"})).status_code for _ in range(40)]
    assert answers[0] == 204
    assert answers[-1] == 429


async def test_a_canary_key_is_not_ended_by_whoever_found_it_and_its_finder_is_not_told(controller: Running) -> None:
    query = (
        'mutation ($a: ID!) { serviceKeyGenerate(serviceAccountId: $a, expirationTime: 0, name: "bait", isCanary: true) '
        "{ ok error token entity { isCanary isIdle } } }"
    )
    made = await changed(controller, query, a=await controller.add_account())
    assert made["entity"] == {"isCanary": True, "isIdle": False}
    answer = await controller.post(REVOKE_PATH, {"assertion": end_assertion(controller, parse_key_file(made["token"]))})
    assert (answer.status_code, answer.text) == (204, "")
    (node,) = await keys(controller)
    assert node["status"] == "ACTIVE"
    event = await controller.last_event()
    assert (event.action, event.detail) == ("alarm", {"code": "canary-key", "attempt": "revocation", "signed": True})
