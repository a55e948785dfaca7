"""A minute of `./dev chaos`: parts are killed under load, and no stream is ever silently truncated."""

from __future__ import annotations

import pytest

from chaos.run import run

pytestmark = [pytest.mark.alone, pytest.mark.timeout(400)]


def test_every_flow_is_whole_or_an_error_while_parts_are_killed() -> None:
    report = run(1.0)
    assert not report.breaches, str(report)
