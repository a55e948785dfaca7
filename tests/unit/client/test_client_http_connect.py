"""The HTTP proxy's requests and answers: CONNECT and absolute form in, a status with the code word out."""

from __future__ import annotations

import io
from http.client import HTTPResponse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.client.capture import http_connect
from klinket.client.capture.http_connect import parse_head
from klinket.domain.errors import FlowRefused, ProtocolError
from klinket.domain.flow import FlowFailure, TransportProtocol

LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
PORT = st.integers(1, 65_535)


class _Answer:
    """Bytes as http.client wants them: a socket that holds one whole answer."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def read(answer: bytes) -> HTTPResponse:
    """Return an answer as Python's own HTTP client reads it."""
    response = HTTPResponse(_Answer(answer))  # type: ignore[arg-type]
    response.begin()
    return response


# ---- requests


@given(NAME, PORT)
def test_connect_names_host_and_port(name: str, port: int) -> None:
    request = parse_head(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: x\r\n\r\n".encode())
    destination = request.destination
    assert (destination.host, destination.port, destination.protocol) == (name, port, TransportProtocol.TCP)
    assert request.forward == b""


@pytest.mark.parametrize(
    ("line", "host", "port"),
    [
        (b"CONNECT DB.Internal:5432 HTTP/1.1", "db.internal", 5432),
        (b"CONNECT db.internal.:5432 HTTP/1.0", "db.internal", 5432),
        (b"CONNECT 10.0.0.5:22 HTTP/1.1", "10.0.0.5", 22),
        (b"CONNECT [2001:DB8::1]:443 HTTP/1.1", "2001:db8::1", 443),
        (b"CONNECT [::ffff:10.0.0.5]:22 HTTP/1.1", "10.0.0.5", 22),
        (b"GET http://db.internal/ HTTP/1.1", "db.internal", 80),
        (b"get http://db.internal:8080/a?b=c HTTP/1.1", "db.internal", 8080),
        (b"GET http://[2001:db8::1]:8080 HTTP/1.1", "2001:db8::1", 8080),
    ],
)
def test_hosts_are_canonical(line: bytes, host: str, port: int) -> None:
    destination = parse_head(line + b"\r\n\r\n").destination
    assert (destination.host, destination.port) == (host, port)


def test_a_request_in_absolute_form_reaches_the_origin_in_origin_form_and_alone() -> None:
    head = (
        b"POST http://db.internal:8080/orders?open=1 HTTP/1.1\r\nHost: db.internal:8080\r\nProxy-Connection: keep-alive\r\n"
        b"Connection: keep-alive\r\nProxy-Authorization: Basic c2VjcmV0\r\nKeep-Alive: 5\r\nContent-Length: 3\r\n\r\n"
    )
    line, *fields = parse_head(head).forward.decode().removesuffix("\r\n\r\n").split("\r\n")
    assert line == "POST /orders?open=1 HTTP/1.1"
    assert fields == ["Host: db.internal:8080", "Content-Length: 3", "Connection: close"]


@pytest.mark.parametrize(("path", "target"), [("", "/"), ("/", "/"), ("?a=b", "/?a=b"), ("/a?b", "/a?b")])
def test_the_origin_is_asked_for_a_path(path: str, target: str) -> None:
    head = f"GET http://db.internal{path} HTTP/1.1\r\n\r\n".encode()
    assert parse_head(head).forward.split(b" ")[1] == target.encode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"CONNECT",
        b"CONNECT db.internal HTTP/1.1",
        b"CONNECT db.internal:0 HTTP/1.1",
        b"CONNECT db.internal:65536 HTTP/1.1",
        b"CONNECT db.internal:99999 HTTP/1.1",
        b"CONNECT db.internal:http HTTP/1.1",
        b"CONNECT db.internal:22 HTTP/2",
        b"CONNECT db.internal:22 HTTP/1.1 ",
        b"CONNECT user@db.internal:22 HTTP/1.1",
        b"CONNECT db_\xff.internal:22 HTTP/1.1",
        b"CONNECT 300.1.1.1:22 HTTP/1.1",
        b"CONNECT [db.internal]:22 HTTP/1.1",
        b"GET /orders HTTP/1.1",
        b"GET https://db.internal/ HTTP/1.1",
        b"GET http://user:secret@db.internal/ HTTP/1.1",
        b"GET http:///orders HTTP/1.1",
        b"GET http://db.internal/a b HTTP/1.1",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_what_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_head(line + b"\r\n\r\n")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(head: bytes) -> None:
    try:
        destination = parse_head(head).destination
    except ProtocolError:
        return
    assert 1 <= destination.port <= 65_535
    assert destination.host == destination.host.lower()


@given(st.text("CONETGHtp:/[]@?#. 0159abz\r\n-", max_size=80))
def test_almost_requests_do_not_smuggle_a_second_line_to_the_origin(head: str) -> None:
    try:
        forward = parse_head(head.encode() + b"\r\n\r\n").forward
    except ProtocolError:
        return
    if forward:
        assert forward.count(b"\r\n\r\n") == 1
        assert forward.endswith(b"Connection: close\r\n\r\n")


# ---- answers


@pytest.mark.parametrize("failure", FlowFailure)
def test_every_failure_has_an_answer_with_its_word(failure: FlowFailure) -> None:
    response = read(http_connect.refusal(FlowRefused(failure, "db.internal said no")))
    assert 400 <= response.status <= 504
    assert response.reason
    assert response.getheader("Klinket-Error") == failure.value
    assert response.getheader("Connection") == "close"
    assert response.getheader("Retry-After") is None
    assert response.read() == f"klinket: {failure.value}: db.internal said no\n".encode()


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "1"), (0.2, "1"), (2.6, "3"), (60.0, "60")])
def test_waiting_is_told_in_whole_seconds(seconds: float, told: str) -> None:
    response = read(http_connect.refusal(FlowRefused(FlowFailure.THROTTLED, "too many", retry_after=seconds)))
    assert (response.status, response.getheader("Retry-After")) == (429, told)


def test_no_request_is_answered_with_400() -> None:
    response = read(http_connect.bad_request("neither CONNECT nor a URL"))
    assert (response.status, response.getheader("Klinket-Error")) == (400, "invalid-input")


def test_success_has_no_body() -> None:
    assert http_connect.ESTABLISHED.startswith(b"HTTP/1.1 200 ")
    assert http_connect.ESTABLISHED.endswith(b"\r\n\r\n")
