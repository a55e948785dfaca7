"""The rule for names of networks, connectors, resources, service accounts and keys."""

from __future__ import annotations

from klinket.domain.errors import InvalidInput

MAX_NAME_CHARS = 255


def parse_name(text: str, field: str = "name") -> str:
    """Return the name without surrounding spaces; raises InvalidInput naming `field`.

    A name has 1 to 255 printable characters: it is shown in tables, logs and mails.
    """
    name = text.strip()
    if not name:
        raise InvalidInput(field, f"{field} must not be empty")
    if len(name) > MAX_NAME_CHARS:
        raise InvalidInput(field, f"{field} has {len(name)} characters, the limit is {MAX_NAME_CHARS}")
    if not name.isprintable():
        raise InvalidInput(field, f"{field} must hold printable characters only")
    return name
