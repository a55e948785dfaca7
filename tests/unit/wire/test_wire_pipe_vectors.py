"""The exact bytes of pipes: tests/vectors/pipe.json, which other implementations can check themselves with.

The file was made by a separate computation from the text of the format (HMAC and AES-GCM only), not by the code under test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.identifiers import FlowId, ResourceId
from klinket.wire import pipe
from klinket.wire.echo import Echo
from klinket.wire.link import Link, derive_secret
from klinket.wire.pipe import FrameType, Purpose
from klinket.wire.pipe_messages import Failure, OpenRequest

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "pipe.json").read_text())
LINK = VECTORS["link"]
PIPES = pytest.mark.parametrize("vector", VECTORS["pipes"], ids=lambda vector: vector["purpose"])


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def link() -> Link:
    return Link(raw(LINK["handle"]), raw(LINK["secret"]), 4e9)


def test_the_link_secret() -> None:
    names = ("client_leaf", "connector_leaf", "client_random", "connector_random", "shared_secret")
    assert derive_secret(*(raw(LINK[name]) for name in names)) == raw(LINK["secret"])


def test_the_vectors_cover_every_type_that_is_sent() -> None:
    frames = [frame for vector in VECTORS["pipes"] for frame in vector["client_frames"] + vector["connector_frames"]]
    assert {frame["type"] for frame in frames} == {"OPEN", "OPENED", "FAIL", "DATA", "FIN", "CONTROL"}
    assert sum(frame["type"] == "OPEN" for frame in frames) > 1  # a reused pipe, with its key moved twice


@PIPES
def test_greeting_and_hello(vector: dict[str, Any]) -> None:
    purpose = Purpose[vector["purpose"]]
    assert pipe.greeting(raw(vector["connector_random"])) == raw(vector["greeting"])
    assert pipe.parse_greeting(raw(vector["greeting"])) == raw(vector["connector_random"])
    assert pipe.hello(purpose, link().handle, raw(vector["client_random"])) == raw(vector["hello"])
    assert pipe.parse_hello(raw(vector["hello"])) == (purpose, link().handle, raw(vector["client_random"]))


@PIPES
def test_frames_of_both_directions(vector: dict[str, Any]) -> None:
    arguments = link(), Purpose[vector["purpose"]], raw(vector["client_random"]), raw(vector["connector_random"])
    client, connector = pipe.client_keys(*arguments), pipe.connector_keys(*arguments)
    for frames, sealer, opener in (
        (vector["client_frames"], client.sealer, connector.opener),
        (vector["connector_frames"], connector.sealer, client.opener),
    ):
        for frame in frames:
            type, content, sealed = FrameType[frame["type"]], raw(frame["content"]), raw(frame["frame"])
            assert sealer.seal(type, content) == sealed
            assert opener.open(sealed) == (type, content)


@PIPES
def test_frames_sealed_in_place_are_the_same(vector: dict[str, Any]) -> None:
    arguments = link(), Purpose[vector["purpose"]], raw(vector["client_random"]), raw(vector["connector_random"])
    sealer = pipe.client_keys(*arguments).sealer
    for frame in vector["client_frames"]:
        content, room = raw(frame["content"]), bytearray(2048)
        plain = memoryview(bytearray(content + b"\xff" * 8))
        length = sealer.seal_into(FrameType[frame["type"]], plain, len(content), memoryview(room))
        assert room[:length] == raw(frame["frame"])
        assert not any(room[length:])


@pytest.mark.parametrize("vector", VECTORS["open"], ids=lambda vector: vector["host"])
def test_opens(vector: dict[str, Any]) -> None:
    request = OpenRequest(
        Destination(vector["host"], vector["port"], TransportProtocol(vector["protocol"])),
        ResourceId(vector["resource"]),
        FlowId(vector["flow"]),
        vector["data_follows"],
    )
    assert request.encode() == raw(vector["content"])
    assert OpenRequest.decode(raw(vector["content"])) == request


@pytest.mark.parametrize("vector", VECTORS["fail"], ids=lambda vector: vector["failure"])
def test_fails(vector: dict[str, Any]) -> None:
    failure = Failure(FlowFailure(vector["failure"]), vector["message"], vector["retry_after"])
    assert failure.encode() == raw(vector["content"])
    assert Failure.decode(raw(vector["content"])) == failure


@pytest.mark.parametrize("vector", VECTORS["echo"], ids=lambda vector: str(vector["sequence"]))
def test_echoes(vector: dict[str, Any]) -> None:
    echo = Echo(vector["sequence"], raw(vector["payload"]))
    assert echo.encode() == raw(vector["content"])
    assert Echo.decode(raw(vector["content"])) == echo
