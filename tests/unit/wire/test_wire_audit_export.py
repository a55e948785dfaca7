"""Lines of an audit export: read exactly, or told as unreadable; nothing in a file is passed over."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.audit_verification import AuditNotIntact, RecordKind, verify
from klinket.domain.errors import InvalidToken
from klinket.wire import audit_export
from klinket.wire.audit_export import event_line, read_records, signature_line, trailer_line
from tests.unit.wire.conftest import JSON, MODERATE


def kinds(*lines: bytes) -> list[RecordKind]:
    return [record.kind for record in read_records(lines)]


def test_lines_are_read_as_what_they_were_written_as() -> None:
    event = {"number": 1, "text": "ü\ud800 ☃", "deep": {"list": [1, None, 2.5, True]}}
    records = list(read_records([event_line(event), b"\n", signature_line("a.b.c"), trailer_line("d.e.f")]))
    assert [(one.line, one.kind) for one in records] == [
        (1, RecordKind.EVENT),
        (3, RecordKind.SIGNATURE),
        (4, RecordKind.TRAILER),
    ]
    assert records[0].event == event
    assert [one.token for one in records[1:]] == ["a.b.c", "d.e.f"]


def test_each_line_is_one_json_object_with_its_type() -> None:
    assert json.loads(event_line({"number": 1})) == {"event_type": "audit_log", "event": {"number": 1}}
    assert event_line({"text": "one\ntwo"}).count(b"\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b'{"event_type": "audit_log"}',
        b'{"event_type": "audit_log", "event": []}',
        b'{"event_type": "audit_log", "event": {}, "more": 1}',
        b'{"event_type": "network", "event": {}}',
        b'{"event_type": "audit_signature", "event": {}}',
        b'{"event_type": "audit_trailer", "event": {"token": 5}}',
        b'{"event_type": "audit_log", "event": {"action": "create", "action": "delete"}}',
        b'{"event_type": "audit_log", "event": {"detail": NaN}}',
        b'{"event_type": "audit_log", "event": {"text": "\xff"}}',
        b"[" * 100_000,
    ],
)
def test_what_others_could_read_in_another_way_is_not_read(line: bytes) -> None:
    assert kinds(line) == [RecordKind.UNREADABLE]


def test_a_line_that_is_too_long_is_not_read() -> None:
    line = event_line({"text": "a" * audit_export.MAX_LINE_BYTES})
    assert kinds(line) == [RecordKind.UNREADABLE]


@MODERATE
@given(st.lists(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), max_size=8))
def test_any_lines_are_told_to_be_altered_and_nothing_else_happens(lines: list[bytes]) -> None:
    def refuse(_: str) -> object:
        raise InvalidToken("not signed")

    with pytest.raises(AuditNotIntact):
        verify(read_records(lines), refuse, refuse)  # type: ignore[arg-type]
