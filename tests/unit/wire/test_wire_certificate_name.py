"""The server name by which a peer asks a relay for the certificate it was told of."""

from __future__ import annotations

import pytest

from klinket.wire.relay import certificate_name


def test_it_is_the_digest_in_two_labels_of_half_its_length() -> None:
    assert certificate_name("0f" * 16 + "a1" * 16) == "0f" * 16 + "." + "a1" * 16


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65])
def test_what_is_no_digest_asks_for_none(digest: str) -> None:
    assert certificate_name(digest) is None
