"""docs/reference/authorization.md is what its generator makes of the table that the authorization tests ask by."""

from __future__ import annotations

import re

from tests.authorization import CALLERS, CHANNEL_DOORS, FIELD_DOORS, PAGE_DOORS, PATH_DOORS, SIGN_IN_DOORS
from tools import authorization_page

DOORS = [door for table in (*FIELD_DOORS.values(), PATH_DOORS, SIGN_IN_DOORS, PAGE_DOORS, CHANNEL_DOORS) for door in table]


def test_the_committed_page_is_the_generated_one() -> None:
    assert authorization_page.page() == authorization_page.PATH.read_text(), "run ./dev docs and commit authorization.md"


def test_the_page_shows_every_door_and_caller_and_whether_it_is_let_in() -> None:
    cells = [line.split("|") for line in authorization_page.page().splitlines() if re.search(r"\| (yes|·) \|", line)]
    assert len(cells) == len(DOORS)
    for row, door in zip(cells, DOORS, strict=True):
        assert row[1].strip(" `") in (door.name, str(door))
        assert {caller for caller, cell in zip(CALLERS, row[2:], strict=False) if cell == " yes "} == door.who, door
