"""What the frames of an ICMP flow hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ProtocolError
from klinket.wire.echo import MAX_ECHO_PAYLOAD_BYTES, Echo
from tests.unit.wire.conftest import MODERATE


def test_an_echo_is_its_sequence_number_and_its_payload() -> None:
    assert Echo(0x0102, b"abc").encode() == b"\x01\x02abc"
    assert Echo(65_535).encode() == b"\xff\xff"


@MODERATE
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_echo_in_its_one_form_or_refused(content: bytes) -> None:
    try:
        echo = Echo.decode(content)
    except ProtocolError:
        assert len(content) < 2
        return
    assert echo.encode() == content
    assert 0 <= echo.sequence < 65_536


def test_a_payload_has_a_limit() -> None:
    most = Echo(1, bytes(MAX_ECHO_PAYLOAD_BYTES))
    assert Echo.decode(most.encode()) == most
    with pytest.raises(ProtocolError):
        Echo.decode(most.encode() + b"\0")
