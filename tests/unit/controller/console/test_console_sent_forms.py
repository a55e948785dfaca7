"""A form whose answer is shown once is taken once."""

from __future__ import annotations

import pytest

from klinket.controller.console.sent_forms import MAX_FORMS, MAX_SESSIONS, SentAlready, SentForms
from klinket.domain.errors import InvalidInput


def form(number: int) -> str:
    return f"{number:032x}"


def test_a_form_is_taken_once_in_its_session() -> None:
    forms = SentForms()
    forms.begin(1, form(1))
    forms.begin(2, form(1))
    with pytest.raises(SentAlready):
        forms.begin(1, form(1))
    forms.forget(1, form(1))
    forms.begin(1, form(1))
    forms.forget(3, form(1))  # of nobody


@pytest.mark.parametrize("text", ["", "x" * 32, "0" * 31, "0" * 33, "0" * 32 + "\n"])
def test_what_is_no_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        SentForms().begin(1, text)


def test_what_is_remembered_is_bounded() -> None:
    forms = SentForms()
    for number in range(MAX_FORMS + 1):
        forms.begin(1, form(number))
    forms.begin(1, form(0))  # the oldest was forgotten
    with pytest.raises(SentAlready):
        forms.begin(1, form(MAX_FORMS))
    for session in range(2, MAX_SESSIONS + 2):
        forms.begin(session, form(1))
    assert len(forms._sent) == MAX_SESSIONS
