"""A form as it was sent: fields by name, within bounds. Use cases check what the values mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from starlette.requests import Request

from klinket.controller.request import bounded_body
from klinket.domain.errors import Conflict, InvalidInput

#: Fields of one form.
MAX_FIELDS = 2_000
#: In every form: the token of the session it was made for.
TOKEN_FIELD = "form_token"  # noqa: S105 - a name
#: In forms that change something: when that was changed last as the form shows it.
SEEN_FIELD = "seen"


class ChangedMeanwhile(Conflict):
    """What a form changes is not any more as the form shows it."""

    code = "changed-meanwhile"
    default_hint = "look at what it is now, and send yours again if it still holds"


class Form:
    """The fields of a form; one that is missing reads as empty."""

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        self._fields = {name: list(values) for name, values in fields.items()}

    def text(self, name: str, default: str = "") -> str:
        """Return a field's (first) value without blanks around it."""
        values = self._fields.get(name)
        return values[0].strip() if values else default

    def raw(self, name: str) -> str:
        """Return a field's value as it was typed: for passwords."""
        values = self._fields.get(name)
        return values[0] if values else ""

    def optional(self, name: str) -> str | None:
        """Return a field's value, or None where it is empty."""
        return self.text(name) or None

    def texts(self, name: str) -> list[str]:
        """Return all values of a field that may be there several times."""
        return list(self._fields.get(name, ()))

    def flag(self, name: str) -> bool:
        """Return whether a checkbox was set."""
        return name in self._fields

    def number(self, name: str, default: int | None = None) -> int:
        """Return a whole number; raises InvalidInput."""
        text = self.text(name)
        if not text and default is not None:
            return default
        if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 15:
            raise InvalidInput(name, f"{name} must be a whole number")
        return int(text)

    def numbers(self, name: str) -> list[int]:
        """Return whole numbers of a field that may be there several times; raises InvalidInput."""
        found = []
        for text in self.texts(name):
            if not text.isascii() or not text.isdigit() or len(text) > 15:
                raise InvalidInput(name, f"{name} must be whole numbers")
            found.append(int(text))
        return found

    def check_unchanged(self, updated_at_ms: int, field: str = SEEN_FIELD) -> None:
        """Raise ChangedMeanwhile unless the form was made from what there is now: nobody overwrites another unknowingly."""
        if self.text(field) != str(updated_at_ms):
            raise ChangedMeanwhile("somebody has changed this meanwhile; nothing of yours was stored")


async def read_form(request: Request) -> Form:
    """Return the form of a request; raises InvalidInput, BodyTooLarge, BodyTooSlow."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise InvalidInput("form", "this is not a form", hint="send it from the console's own page")
    body = await bounded_body(request)
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidInput("form", f"the form cannot be read: at most {MAX_FIELDS} fields, UTF-8") from error
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return Form(fields)
