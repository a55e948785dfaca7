"""Text of others as it may be shown: on terminals, in logs, in mails. Escape sequences and line breaks stay without effect."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return the text with `?` for each character that cannot be printed (controls, bidirectional overrides, surrogates)."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def escaped(text: str) -> str:
    r"""Return the text in one line, with each character that cannot be printed as Python writes it: `\n`, `\x1b`, `\u202e`."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
