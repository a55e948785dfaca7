"""The HTTP surface beside the Admin API: health, readiness, metrics, keys, refusals with a status, and overload as such."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import WebSocketRoute

from klinket.controller.app.store_errors import StoreClosed, StoreOverloaded, StoreUnavailable
from klinket.controller.request import MAX_BODY_BYTES
from klinket.controller.trust import KeyPurpose
from klinket.wire import signing
from klinket.wire.key_file import LOGIN_PATH
from klinket.wire.paths import CUTS_PATH, ENROL_PATH, EXTENSION_PATH, GRAPHQL_PATH, LOGOUT_PATH, VALIDATE_TOKENS_PATH
from tests.unit.controller.running import NETWORK, Running


async def test_health_needs_nothing_and_readiness_needs_the_store(controller: Running) -> None:
    answer = await controller.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    revision = (await controller.read(lambda tx: tx.head()))[1]
    answer = await controller.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "revision": revision})
    controller.store.close()
    assert (await controller.get("/healthz")).status_code == 200
    answer = await controller.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "store-closed")


def test_every_path_is_in_the_reference(controller: Running) -> None:
    written = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "control.md").read_text()
    for route in controller.app.routes:
        if route.path.startswith("/console"):
            continue  # pages are for people: docs/how-to/use-the-console.md
        path = re.sub(r"\{\w+:number\}", "NUMBER", route.path)
        methods = {"WebSocket"} if isinstance(route, WebSocketRoute) else (route.methods or set()) - {"HEAD"}
        if path in (GRAPHQL_PATH, EXTENSION_PATH):
            methods -= {"GET"}  # a line for whoever looks
        for method in methods:
            assert f"{method} `{path}`" in written or f"`{method} {path}`" in written


async def test_who_this_is_is_told_to_anybody(controller: Running) -> None:
    assert (await controller.get("/")).json() == {"product": "klinket", "network": NETWORK}


async def test_every_public_signing_key_is_listed_and_no_private_one(controller: Running) -> None:
    answer = await controller.get("/.well-known/jwks.json")
    listed = answer.json()["keys"]
    signers = {controller.trust.signers[purpose].kid: controller.trust.signers[purpose].public_key for purpose in KeyPurpose}
    assert {key["kid"] for key in listed} == signers.keys()
    assert all("d" not in key for key in listed)
    for key in listed:
        assert signing.thumbprint(signing.public_key_from_jwk(key)) == signing.thumbprint(signers[key["kid"]])


@pytest.mark.parametrize(
    ("source", "status"), [("127.0.0.1", 200), ("::1", 200), ("192.0.2.7", 401), ("", 401), ("testclient", 401)]
)
async def test_metrics_are_told_to_this_machine_only(controller: Running, source: str, status: int) -> None:
    assert (await controller.get("/metrics", source=source)).status_code == status


async def test_metrics_count_logins_and_enrolments_by_their_outcome(controller: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    _, key_file = await controller.add_key(await controller.add_account())
    tokens = await controller.connector_tokens(await controller.add_connector(await controller.add_network()))
    await controller.log_in(key_file)
    await controller.enrol(tokens)
    await controller.post(LOGIN_PATH, {"assertion": "x", "certificate_request": "y"})
    await controller.post(ENROL_PATH, {"access_token": "x", "refresh_token": "y", "certificate_request": "z"})
    overload(controller, monkeypatch, StoreOverloaded("full"))
    await controller.post(LOGIN_PATH, controller.login_body(key_file, signing.generate_private_key()))
    text = (await controller.get("/metrics", source="127.0.0.1")).text
    for line in (
        'klinket_logins_total{outcome="accepted"} 1.0',
        'klinket_logins_total{outcome="refused"} 1.0',
        'klinket_logins_total{outcome="unavailable"} 1.0',
        'klinket_enrolments_total{outcome="accepted"} 1.0',
        'klinket_enrolments_total{outcome="refused"} 1.0',
        'klinket_attached_peers{role="client"} 0.0',
    ):
        assert line in text.splitlines()
    assert key_file.key_id not in text


def overload(controller: Running, monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable) -> None:
    """Make every further write of the store fail like this."""

    async def write(_: Any) -> Any:
        raise error

    monkeypatch.setattr(controller.store, "write", write)


@pytest.mark.parametrize(("error", "seconds"), [(StoreOverloaded("full"), "1"), (StoreClosed("closed"), "5")])
async def test_overload_is_told_as_such_and_never_doubts_anybodys_key(
    controller: Running, monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable, seconds: str
) -> None:
    network = await controller.add_network()
    _, key_file = await controller.add_key(await controller.add_account())
    tokens = await controller.connector_tokens(await controller.add_connector(network))
    body = controller.login_body(key_file, signing.generate_private_key())
    enrolment = {**tokens, "certificate_request": body["certificate_request"]}
    headers = {"X-API-KEY": controller.tokens["read", "write", "provision"]}
    mutation = {"query": 'mutation { remoteNetworkCreate(name: "another") { ok error } }'}
    overload(controller, monkeypatch, error)
    for path, sent, more in ((LOGIN_PATH, body, None), (ENROL_PATH, enrolment, None), (GRAPHQL_PATH, mutation, headers)):
        answer = await controller.post(path, sent, headers=more)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, seconds), path
        assert error.code in answer.text
    monkeypatch.undo()
    assert (await controller.post(LOGIN_PATH, body)).status_code == 200  # the same assertion: it was not used up
    assert not [row for row in await controller.audit() if row.action == "refuse"]


async def test_a_query_to_a_controller_that_goes_down_is_told_as_such(controller: Running) -> None:
    headers = {"X-API-KEY": controller.tokens["read", "write", "provision"]}
    controller.store.close()
    answer = await controller.post(GRAPHQL_PATH, {"query": "{ groups { edges { node { id } } } }"}, headers=headers)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["errors"][0]["extensions"]["code"] == "store-closed"


@pytest.mark.parametrize("path", [LOGIN_PATH, LOGOUT_PATH, ENROL_PATH, VALIDATE_TOKENS_PATH])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"a": 1}', b"{" * 100_000])
async def test_a_body_that_is_not_understood_is_refused_with_its_name(controller: Running, path: str, content: bytes) -> None:
    async with controller.http() as client:
        answer = await client.post(path, content=content)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-input")
    assert "body" in answer.json()["message"]


@pytest.mark.parametrize("path", [LOGIN_PATH, LOGOUT_PATH, ENROL_PATH, VALIDATE_TOKENS_PATH])
async def test_a_body_above_the_limit_is_not_read(controller: Running, path: str) -> None:
    async with controller.http() as client:
        answer = await client.post(path, content=b"x" * (MAX_BODY_BYTES + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer {}", 200),
        ("bearer {}", 200),
        ("Bearer  {} ", 200),
        ("Basic {}", 410),
        ("{}", 410),
        (None, 410),
        ("Bearer x", 410),
    ],
)
async def test_tokens_are_checked_with_the_access_token_as_bearer(controller: Running, header: str | None, status: int) -> None:
    tokens = await controller.connector_tokens(await controller.add_connector(await controller.add_network()))
    headers = {} if header is None else {"Authorization": header.format(tokens["access_token"])}
    answer = await controller.post(VALIDATE_TOKENS_PATH, {"refresh_token": tokens["refresh_token"]}, headers=headers)
    assert answer.status_code == status
    assert answer.json() == {"ok": True} if status == 200 else answer.json()["code"] == "connector-tokens-dead"


@pytest.mark.parametrize("scopes", [("read",), ("write",), ("read", "write")])
async def test_cuts_are_shown_to_those_who_may_read(controller: Running, scopes: tuple[str, ...]) -> None:
    account = await controller.add_account(resources=[await controller.add_resource(await controller.add_network())])
    key, _ = await controller.add_key(account)
    await controller.revoke_key(key)
    headers = {"X-API-KEY": controller.tokens[scopes]}
    answer = await controller.get(CUTS_PATH, headers=headers)
    (cut,) = answer.json()["cuts"]
    assert cut["scope"].startswith("key ")
    document = (await controller.get(f"{CUTS_PATH}/{cut['id']}", headers=headers)).json()
    assert document.pop("signature").count(".") == 2
    assert document.pop("what") == "Everything reached with key runner of ci"
    assert document == cut


@pytest.mark.parametrize("number", [999, 1 << 62, 10**30])
async def test_a_cut_that_is_not_there_is_told_as_such(controller: Running, number: int) -> None:
    answer = await controller.get(f"{CUTS_PATH}/{number}", headers={"X-API-KEY": controller.tokens["read",]})
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


async def test_answers_with_secrets_are_kept_by_nobody(controller: Running) -> None:
    _, key_file = await controller.add_key(await controller.add_account())
    answer = await controller.post(LOGIN_PATH, controller.login_body(key_file, signing.generate_private_key()))
    assert answer.headers["Cache-Control"] == "no-store"
