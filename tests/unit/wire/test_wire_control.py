"""Messages of the live channel: each for its reader only, junk refused, newer peers understood."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ProtocolError
from klinket.wire import control
from tests.unit.wire.conftest import ANY_TEXT, JSON, MODERATE, hostile_json, messages

READERS: dict[str, tuple[Callable[[str | bytes], Any], tuple[type[Any], ...]]] = {
    "controller": (control.decode_to_controller, get_args(control.ToController)),
    "client": (control.decode_to_client, get_args(control.ToClient)),
    "connector": (control.decode_to_connector, get_args(control.ToConnector)),
}
EVERY = sorted({kind for _, kinds in READERS.values() for kind in kinds}, key=lambda kind: kind.__name__)
TAGS = [kind.__struct_config__.tag for kind in EVERY]
EVERY_READER = pytest.mark.parametrize("reader", READERS)
ANY_MESSAGE = st.sampled_from(EVERY).flatmap(messages)


def test_every_message_has_a_reader_and_a_type_of_its_own() -> None:
    assert set(control.Message.__subclasses__()) == set(EVERY)
    assert len(set(TAGS)) == len(TAGS)
    assert all(isinstance(tag, str) and tag == tag.lower() and " " not in tag for tag in TAGS)


@MODERATE
@given(ANY_MESSAGE)
def test_a_message_arrives_at_its_readers_and_at_nobody_else(message: control.Message) -> None:
    text = control.encode(message)
    for decode, kinds in READERS.values():
        if type(message) in kinds:
            assert decode(text) == decode(text.encode()) == message
        else:
            with pytest.raises(ProtocolError):
                decode(text)


@MODERATE
@given(ANY_MESSAGE, st.dictionaries(st.sampled_from(["later", "x"]), st.integers() | st.text(max_size=9), min_size=1))
def test_fields_of_a_newer_peer_are_ignored(message: control.Message, later: dict[str, Any]) -> None:
    document = {**json.loads(control.encode(message)), **later}
    text = json.dumps(document)
    for decode, kinds in READERS.values():
        if type(message) in kinds:
            assert decode(text) == message


@MODERATE
@given(ANY_MESSAGE, st.data())
def test_fields_without_default_are_needed_and_others_are_not(message: control.Message, data: st.DataObject) -> None:
    document = json.loads(control.encode(message))
    name = data.draw(st.sampled_from(sorted(document)))
    del document[name]
    config = {field.encode_name: field.required for field in msgspec.structs.fields(type(message))}
    for decode, kinds in READERS.values():
        if type(message) not in kinds:
            continue
        if config.get(name, True):
            with pytest.raises(ProtocolError):
                decode(json.dumps(document))
        else:
            assert type(decode(json.dumps(document))) is type(message)


@MODERATE
@given(ANY_MESSAGE, JSON, st.data())
def test_any_value_of_any_field_is_taken_or_refused(message: control.Message, junk: Any, data: st.DataObject) -> None:
    document = json.loads(control.encode(message))
    document[data.draw(st.sampled_from(sorted(document)))] = junk
    text = json.dumps(document)
    for decode, kinds in READERS.values():
        try:
            decoded = decode(text)
        except ProtocolError:
            continue
        assert type(decoded) in kinds
        assert decode(control.encode(decoded)) == decoded


@EVERY_READER
@MODERATE
@given(st.data())
def test_arbitrary_input_is_refused_or_a_whole_message(reader: str, data: st.DataObject) -> None:
    decode, kinds = READERS[reader]
    content = data.draw(hostile_json(TAGS) | ANY_TEXT)
    try:
        message = decode(content)
    except ProtocolError:
        return
    assert type(message) in kinds


@EVERY_READER
@pytest.mark.parametrize(
    "content",
    [
        "",
        b"",
        "null",
        "[]",
        "{}",
        '{"type":null}',
        '{"type":"challenge"',
        '{"type":"message"}',
        '{"type":["renew"]}',
        '{"type":"renew","type":5}',
        b"\xff",
        b"\xef\xbb\xbf{}",
        "\ud800",
        '{"type":"refused","code":"\ud800","message":""}',
        b'{"type":"refused","code":"\xff","message":""}',
        '{"type":"refused","code":"\\ud800","message":""}',
        '{"type":"challenge","nonce":"x","time_ms":' + "9" * 5000 + "}",
        '{"type":"refused","code":"x","message":"","retry_after":1e999}',
        '{"type":"refused","code":"x","message":"","retry_after":NaN}',
        "[" * 200_000,
        '{"x":' * 200_000,
    ],
)
def test_what_is_no_message_is_refused(reader: str, content: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        READERS[reader][0](content)


@EVERY_READER
def test_nesting_without_end_inside_a_free_field_is_refused(reader: str) -> None:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    text = '{"type":"connector-configuration","grant_keys":' + deep + "}"
    with pytest.raises(ProtocolError):
        READERS[reader][0](text)


@EVERY_READER
def test_a_message_above_the_limit_is_refused_before_it_is_parsed(reader: str) -> None:
    padded = control.encode(control.Refused(code="x", message="")).ljust(control.MAX_CONTROL_BYTES)
    if reader != "controller":
        assert isinstance(READERS[reader][0](padded), control.Refused)
    for content in (padded + " ", (padded + " ").encode()):
        with pytest.raises(ProtocolError, match="limit"):
            READERS[reader][0](content)
