"""How many datagrams are read in one turn."""

from __future__ import annotations

import pytest

from klinket.net import rounds
from klinket.net.rounds import BATCH, Rounds


def test_a_lone_datagram_is_read_alone_and_many_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(rounds.time, "monotonic", lambda: now)
    one = Rounds()
    assert one.most() == 1
    one.all_read()
    now += rounds.CLOSE_SECONDS / 2
    assert one.most() == BATCH, "the loop has said at once that there is more"
    one.all_read()
    assert one.most() == BATCH
    one.empty()
    assert one.most() == 1
    one.all_read()
    now += rounds.CLOSE_SECONDS * 2
    assert one.most() == 1, "the next came later by itself"
