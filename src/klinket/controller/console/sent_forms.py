"""Forms whose answer is shown once: one that is sent again, by a reload of the answer, does nothing more."""

from __future__ import annotations

import re

from klinket.domain.errors import Conflict, InvalidInput

#: The field such a form carries.
FORM_FIELD = "form_id"
#: Sessions whose forms are remembered, and forms of one.
MAX_SESSIONS = 1_000
MAX_FORMS = 200
_FORM_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class SentAlready(Conflict):
    """A form whose answer is shown once was sent once more."""

    code = "sent-already"
    default_hint = "if what was shown was not stored, revoke it and make another one"


class SentForms:
    """Ids of forms that were sent, by session. A restart forgets them: then a reload makes one more, and shows it."""

    def __init__(self) -> None:
        self._sent: dict[int, dict[str, None]] = {}

    def begin(self, session: int, form: str) -> None:
        """Note that a form was sent; raises SentAlready, and InvalidInput for what is no id of a form."""
        if not _FORM_ID.fullmatch(form):
            raise InvalidInput(FORM_FIELD, "this form is not complete", hint="open its page again")
        sent = self._sent.setdefault(session, {})
        if form in sent:
            raise SentAlready("this form was sent already, and what it made was shown then: it cannot be shown again")
        sent[form] = None
        while len(sent) > MAX_FORMS:
            del sent[next(iter(sent))]
        while len(self._sent) > MAX_SESSIONS:
            del self._sent[next(iter(self._sent))]

    def forget(self, session: int, form: str) -> None:
        """Let a form be sent again: nothing was made of it."""
        self._sent.get(session, {}).pop(form, None)
