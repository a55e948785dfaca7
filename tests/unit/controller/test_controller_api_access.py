"""Who may speak to the Admin API: before anything of the request is parsed, from where, and how often."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from klinket.controller.api_access import ApiRates, _RateLimit
from klinket.controller.app import api_tokens
from klinket.controller.config import API_READS_PER_MINUTE, API_WRITES_PER_MINUTE, ControllerConfig
from klinket.controller.http import CUTS_PATH
from klinket.controller.throttle import FAILURE_BURST, RECORD_BURST
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import InvalidInput, Throttled
from klinket.net.sockets import HostPort
from klinket.wire.paths import EXTENSION_PATH, GRAPHQL_PATH
from tests.unit.controller.running import SOURCE, Running

LOOK = {"query": "{ groups { totalCount } }"}
CHANGE = {"query": 'mutation { a: groupUpdate(id: "x") { ok } b: groupUpdate(id: "x") { ok } }'}


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[Running]:
    """A controller that allows each token 6 requests and 3 mutations a minute."""
    running = Running(tmp_path / "state", api_reads_per_minute=6, api_writes_per_minute=3)
    await running.open()
    yield running
    running.store.close()


def key(controller: Running, *scopes: str) -> dict[str, str]:
    return {"X-API-KEY": controller.tokens[scopes or api_tokens.ALL_SCOPES]}


async def made(controller: Running, name: str, **values: Any) -> dict[str, str]:
    """Return the header of a new token."""
    text = await controller.write(
        lambda tx: api_tokens.create(tx, SYSTEM, name=name, scopes=["provision"], entropy=os.urandom, **values)[1]
    )
    return {"X-API-KEY": text}


# ---- before anything is parsed


@pytest.mark.parametrize("path", [GRAPHQL_PATH, EXTENSION_PATH])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"x" * 300_000, b'{"query": "{ nothing }"}', b'{"query": "{ __schema { types { name } } }"}']
)
async def test_who_is_not_believed_learns_nothing_of_the_request(controller: Running, path: str, content: bytes) -> None:
    async with controller.http() as client:
        answer = await client.post(path, content=content)
    assert answer.status_code == 401
    (error,) = answer.json()["errors"]
    assert error == {
        "message": "X-API-KEY holds no valid API token",
        "extensions": {
            "code": "authentication-failed",
            "hint": "it is missing, mistyped, expired, disabled or deleted, or of another network",
        },
    }


@pytest.mark.parametrize("name", ["X-API-KEY", "x-api-key", "X-Api-Key", "x-aPI-kEy"])
async def test_the_header_is_read_in_any_case(controller: Running, name: str) -> None:
    assert (await controller.post(GRAPHQL_PATH, LOOK, headers={name: key(controller)["X-API-KEY"]})).status_code == 200


@pytest.mark.parametrize("text", ["é" * 57, "kl_api_" + "é" * 47, " ", "kl_api_", "x" * 8_000])
async def test_any_text_in_the_header_is_a_token_or_refused(controller: Running, text: str) -> None:
    answer = await controller.post(GRAPHQL_PATH, LOOK, headers=[("X-API-KEY", text.encode())])
    assert answer.status_code == 401


# ---- from where


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("192.0.2.7", 200),
        ("::ffff:192.0.2.7", 200),
        ("192.0.3.7", 403),
        ("::ffff:192.0.3.7", 403),
        ("2001:db8::1", 200),
        ("2001:db9::1", 403),
        ("fe80::1%eth0", 403),
        ("", 403),
    ],
)
async def test_a_token_with_ranges_is_used_from_there_only(controller: Running, source: str, status: int) -> None:
    headers = await made(controller, "office", allowed_ranges=["192.0.2.0/24", "2001:db8::/32"])
    answer = await controller.post(GRAPHQL_PATH, LOOK, source=source, headers=headers)
    assert answer.status_code == status
    if status == 403:
        (error,) = answer.json()["errors"]
        assert error["extensions"]["code"] == "forbidden"
        assert "may not be used from" in error["message"]
    assert (await controller.get(CUTS_PATH, source=source, headers=headers)).status_code == status


async def test_headers_of_proxies_say_nothing_of_where_a_request_comes_from(controller: Running) -> None:
    headers = await made(controller, "office", allowed_ranges=["198.51.100.0/24"])
    claimed = {"X-Forwarded-For": "198.51.100.1", "Forwarded": "for=198.51.100.1", "X-Real-IP": "198.51.100.1"}
    answer = await controller.post(GRAPHQL_PATH, LOOK, source="192.0.2.7", headers=headers | claimed)
    assert answer.status_code == 403


# ---- what is refused is audited


async def refusals(controller: Running) -> list[tuple[str, Any]]:
    """Return why, and to which token, requests were refused."""
    events = [event for event in await controller.audit() if event.action == "refuse"]
    return [(event.detail["why"], event.targets[0]["name"]) for event in events]


async def test_a_token_that_is_used_from_elsewhere_or_beyond_its_scopes_is_audited(controller: Running) -> None:
    office = await made(controller, "office", allowed_ranges=["192.0.2.0/24"])
    assert (await controller.post(GRAPHQL_PATH, LOOK, source="198.51.100.7", headers=office)).status_code == 403
    assert await refusals(controller) == [("source", "office")]
    assert (await controller.post(GRAPHQL_PATH, LOOK, source="192.0.2.7", headers=office)).status_code == 200
    assert len(await refusals(controller)) == 1
    assert (await controller.post(GRAPHQL_PATH, CHANGE, headers=key(controller, "read"))).status_code == 403
    assert [why for why, _ in await refusals(controller)] == ["source", "scope"]


async def test_refusals_of_a_token_fill_the_audit_slowly(controller: Running) -> None:
    office = await made(controller, "office", allowed_ranges=["192.0.2.0/24"])
    for _ in range(RECORD_BURST + 5):
        await controller.post(GRAPHQL_PATH, LOOK, source="198.51.100.7", headers=office)
    assert len(await refusals(controller)) == RECORD_BURST


# ---- how often


async def test_an_address_that_guesses_waits_as_at_a_login(controller: Running) -> None:
    guess = {"X-API-KEY": "kl_api_" + "0" * 47}
    for _ in range(FAILURE_BURST):
        assert (await controller.post(GRAPHQL_PATH, LOOK, source="198.51.100.1", headers=guess)).status_code == 401
    refused = await controller.post(GRAPHQL_PATH, LOOK, source="198.51.100.1", headers=guess)
    assert refused.status_code == 429
    assert refused.headers["Retry-After"].isdigit()
    assert refused.json()["errors"][0]["extensions"]["code"] == "throttled"
    assert (await controller.get(CUTS_PATH, source="198.51.100.1", headers=guess)).status_code == 429
    assert (await controller.post(GRAPHQL_PATH, LOOK, source="198.51.100.2", headers=key(controller))).status_code == 200


async def test_a_request_without_a_token_guesses_nothing(controller: Running) -> None:
    for _ in range(FAILURE_BURST + 1):
        assert (await controller.post(GRAPHQL_PATH, LOOK)).status_code == 401
    assert (await controller.post(GRAPHQL_PATH, LOOK, headers=key(controller))).status_code == 200


async def test_each_token_has_its_requests_a_minute(limited: Running) -> None:
    read = key(limited, "read")
    bodies: list[Any] = [LOOK, {"query": "{"}, {"no": "query"}, LOOK, {"query": "{ nothing }"}]
    statuses = [(await limited.post(GRAPHQL_PATH, body, headers=read)).status_code for body in bodies]
    assert statuses == [200, 200, 400, 200, 200]
    assert (await limited.get(CUTS_PATH, headers=read)).status_code == 200
    for answer in (await limited.post(EXTENSION_PATH, LOOK, headers=read), await limited.get(CUTS_PATH, headers=read)):
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 10
        assert "6 a minute are allowed" in answer.text
    assert (await limited.post(GRAPHQL_PATH, LOOK, headers=key(limited))).status_code == 200


async def test_each_mutation_of_a_document_is_a_write(limited: Running) -> None:
    """Three are allowed: two documents of two, of which the second takes one in advance."""
    assert [(await limited.post(GRAPHQL_PATH, CHANGE, headers=key(limited))).status_code for _ in range(3)] == [200, 200, 429]
    refused = await limited.post(GRAPHQL_PATH, CHANGE, headers=key(limited))
    assert int(refused.headers["Retry-After"]) > 20
    assert "too many mutations: 3 a minute are allowed" in refused.text
    assert (await limited.post(GRAPHQL_PATH, LOOK, headers=key(limited))).status_code == 200
    assert (await limited.post(GRAPHQL_PATH, CHANGE, headers=key(limited, "read", "write"))).status_code == 200


async def test_what_is_refused_is_not_counted_as_a_write(limited: Running) -> None:
    provision = {"query": 'mutation { serviceAccountKeyRevoke(id: "x") { ok } }'}
    for _ in range(4):
        assert (await limited.post(GRAPHQL_PATH, provision, headers=key(limited, "read", "write"))).status_code == 403
    assert (await limited.post(GRAPHQL_PATH, CHANGE, headers=key(limited, "read", "write"))).status_code == 200


async def test_zero_is_no_limit(controller: Running) -> None:
    assert (controller.config.api_reads_per_minute, controller.config.api_writes_per_minute) == (0, 0)
    for _ in range(30):
        assert (await controller.post(GRAPHQL_PATH, CHANGE, headers=key(controller))).status_code == 200


def test_a_bucket_fills_again_within_a_minute() -> None:
    limit = _RateLimit("requests", 60)
    for _ in range(60):
        limit.count(1, "ops", 1, 100.0)
    with pytest.raises(Throttled) as refused:
        limit.count(1, "ops", 1, 100.5)
    assert refused.value.retry_after == pytest.approx(0.5)
    limit.count(2, "other", 1, 100.5)
    limit.count(1, "ops", 1, 101.0)
    for _ in range(60):
        limit.count(1, "ops", 1, 200.0)


def test_a_limit_below_zero_is_refused_by_name(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "network": "acme",
        "state": tmp_path,
        "listen": HostPort("127.0.0.1", 1),
        "public_url": "https://127.0.0.1:1",
    }
    default = ControllerConfig(**settings)
    rates = ApiRates(default.api_reads_per_minute, default.api_writes_per_minute)
    assert rates == ApiRates(API_READS_PER_MINUTE, API_WRITES_PER_MINUTE) == ApiRates(600, 200)
    for name in ("api-reads-per-minute", "api-writes-per-minute"):
        with pytest.raises(InvalidInput) as refused:
            ControllerConfig(**settings, **{name.replace("-", "_"): -1})
        assert refused.value.field == name


# ---- its use is noted


async def test_the_use_of_a_token_is_written_once_a_minute(controller: Running) -> None:
    async def noted() -> list[int | None]:
        return [row.last_used_ms for row in await controller.read(lambda tx: tx.api_tokens.find(name="read"))]

    assert await noted() == [None]
    await controller.post(GRAPHQL_PATH, LOOK, headers=key(controller, "read"))
    (first,) = await noted()
    assert first is not None
    await controller.post(GRAPHQL_PATH, LOOK, headers=key(controller, "read"))
    assert await noted() == [first]
    controller.offset += 60
    await controller.get(CUTS_PATH, headers=key(controller, "read"))
    (second,) = await noted()
    assert second is not None
    assert second >= first + 60_000


async def test_a_disabled_token_is_dead_at_once(controller: Running) -> None:
    headers = await made(controller, "ops")

    def disable(tx: Any) -> None:
        (row,) = tx.api_tokens.find(name="ops")
        api_tokens.update(tx, SYSTEM, row, is_enabled=False)

    assert (await controller.post(GRAPHQL_PATH, LOOK, headers=headers)).status_code == 200
    await controller.write(disable)
    assert (await controller.post(GRAPHQL_PATH, LOOK, headers=headers)).status_code == 401


# ---- paths and methods


@pytest.mark.parametrize(
    ("method", "path", "status", "hint"),
    [
        ("POST", "/api/graphql", 404, "with the slash at the end: /api/graphql/"),
        ("POST", "/api/klinket/graphql", 404, "with the slash at the end: /api/klinket/graphql/"),
        ("GET", "/api/nothing/", 404, "the Admin API is at /api/graphql/"),
        ("GET", "/healthz/", 404, "the Admin API is at /api/graphql/"),
        ("DELETE", "/api/graphql/", 405, "it takes"),
    ],
)
async def test_a_path_or_method_that_is_not_there_is_told_in_json(
    controller: Running, method: str, path: str, status: int, hint: str
) -> None:
    async with controller.http(SOURCE) as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message", "hint"}
    assert hint in answer.json()["hint"]
    assert "location" not in answer.headers
