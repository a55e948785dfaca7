"""Tab completion in bash whose words are quoted: a name with a space stays one word, and no name is a command.

Names of resources and services are what somebody typed in the console. bash puts them into the command line as they are.
"""

from __future__ import annotations

import os
import re
from typing import Any

from click.shell_completion import BashComplete, CompletionItem, add_completion_class

#: What bash takes for itself: everywhere, and within double quotes.
_SPECIAL = re.compile(r"[^\w@%+=:,./\-]")
_SPECIAL_IN_QUOTES = re.compile(r'[$`"\\]')


class QuotedBashComplete(BashComplete):
    """As click's, whose script reads a line for each word, and takes one backslash of two away."""

    #: Without patterns: a word with a `*` would be what files of the folder are called, unquoted.
    source_template = BashComplete.source_template.replace("    local response\n", "    local response -\n    set -o noglob\n", 1)

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return the line of one word."""
        if item.type != "plain":
            return super().format_completion(item)
        return f"{item.type},{_quoted(str(item.value), _begun()).replace(chr(92), 2 * chr(92))}"


def _begun() -> str:
    """Return the word under the cursor as it was typed, with its quote."""
    words = os.environ.get("COMP_WORDS", "").split("\n")
    place = os.environ.get("COMP_CWORD", "")
    return words[int(place)] if place.isascii() and place.isdigit() and int(place) < len(words) else ""


def _quoted(word: str, begun: str) -> str:
    """Return a word as bash has to have it behind what was typed, with the quote that is open there, if there is one.

    Only one that the word begins with counts, while it has not come again: what is done without it does no harm within quotes.
    """
    quote = begun[:1]
    if quote in ("'", '"') and quote not in begun[1:]:
        if quote == "'":
            return word.replace("'", "'\\''")
        # Between double quotes no backslash is taken away in front of an exclamation mark.
        return _SPECIAL_IN_QUOTES.sub(lambda found: "\\" + found[0], word).replace("!", '"\\!"')
    return _SPECIAL.sub(lambda found: "\\" + found[0], word)


def register() -> None:
    """Have click use it."""
    add_completion_class(QuotedBashComplete)
