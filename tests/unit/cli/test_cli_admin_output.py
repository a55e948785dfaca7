"""What people are shown: words in place of the API's fields, and times without digits that say nothing."""

from __future__ import annotations

import json

import pytest

from klinket.cli.admin.output import show_object

ROW = {"id": "x", "createdAt": "2026-11-27T09:54:47.209000+00:00", "lastUsedAt": "2026-11-27T09:54:47+00:00", "name": "a 2026"}


def test_fields_are_words_and_times_are_short(capsys: pytest.CaptureFixture[str]) -> None:
    show_object(ROW, as_json=False)
    assert [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()] == [
        ["id", "x"],
        ["created", "at", "2026-11-27T09:54:47.209Z"],
        ["last", "used", "at  2026-11-27T09:54:47Z"],
        ["name", "a", "2026"],
    ]


def test_scripts_get_fields_and_times_as_the_api_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    show_object(ROW, as_json=True)
    assert json.loads(capsys.readouterr().out) == ROW
