"""Makes docs/reference/authorization.md from the table that the authorization tests ask by: `./dev docs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from graphql import GraphQLSchema

from klinket.controller.graphql.extension.load import load_extension
from klinket.controller.graphql.schema import load_schema
from klinket.wire.paths import EXTENSION_PATH, GRAPHQL_PATH
from tests.authorization import CALLERS, CHANNEL_DOORS, CHANNEL_PATHS, FIELD_DOORS, PAGE_DOORS, PATH_DOORS, SIGN_IN_DOORS, Door

PATH = Path(__file__).resolve().parents[1] / "docs" / "reference" / "authorization.md"

_HEAD = """\
# Who may use what

<!-- Made by `./dev docs` from tests/authorization.py; changes belong there. -->

Every query and mutation of the Admin API, every other path of the controller, every page and form of the console, and every
message of the live channels, against every kind of caller. Tests ask at each door as each caller
(`tests/unit/controller/test_controller_authorization.py`), so each cell below is the answer to a request:

- **yes**: it was not refused for who asked. What it asks for may still not exist, or be refused as a wrong value.
- **·**: it was refused, as not believed or not allowed, and changed nothing.

A caller shows its credential in every header that any door reads, and in the body where a door takes it there. A field, path,
page or message that is added without a line in the table fails these tests.

## Callers

"""
_PATHS = """
## Other paths

- Where a document holds several fields, it needs the scope of each, and does nothing at all without one of them. The two paths of
  the Admin API and their `dry-run/` stand here for a document that asks for nothing but `__typename`; each mutation above was
  tried at `dry-run/` too, with the same answers.
- `/metrics` answers requests from the controller's own machine only, and those whoever sends them.
- `headless/` paths take an assertion that the service key signs, of a kind of its own for each; `reflect` takes the token of a
  meeting, which the controller gives to both sides over their live channels, from the address these come from.
- `headless/logout` and `headless/revoke` answer everybody alike; what ended, or did not, was looked at instead.
"""
_SIGN_IN = """
## Signing in to the console

**yes**: the page is shown, or its form read. That alone gives nothing: what a form takes is a password, a code, a passkey, a
one-time link or a word of the identity provider, and the page tells when that is wrong. **·**: it leads to the first page. Paths
with `oidc` are there with [single sign-on](../how-to/sign-in-to-the-console.md). Signing out ends the session it is asked with.
"""
_PAGES = """
## Pages and forms of the console

`GET` opens a page, `POST` sends its form. A form needs the token of the session as well, and comes from the console's own pages.
**proof**: only within 5 minutes after proving who one is; else the page leads to where that is done, which was tried as well.
A user's own account is open to every role.
"""
_CHANNELS = """
## Live channels

Each channel is a WebSocket; [control](control.md) says its messages. `attach` opens it; on the channel of a relay that is the
handshake itself. A message that is refused ends its channel.
"""


def _table(first: str, doors: Iterable[tuple[str, Door]], *, proof: bool = False) -> Iterator[str]:
    heads = [first, *CALLERS, *(["proof"] if proof else [])]
    yield ""
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for name, door in doors:
        cells = [f"`{name}`", *("yes" if caller in door.who else "·" for caller in CALLERS)]
        yield f"| {' | '.join([*cells, *(['proof' if door.proof else ''] if proof else [])])} |"


def _fields(title: str, path: str, schema: GraphQLSchema) -> Iterator[str]:
    assert schema.query_type is not None
    yield ""
    yield f"## {title}, at `POST {path}`"
    queries = set(schema.query_type.fields)
    for kind, is_query in (("query", True), ("mutation", False)):
        yield from _table(kind, ((door.name, door) for door in FIELD_DOORS[path] if (door.name in queries) == is_query))


def page() -> str:
    """Return the whole page."""
    lines = ["| caller | what it shows |", "|---|---|", *(f"| {name} | {shown} |" for name, shown in CALLERS.items())]
    lines += _fields("The contract", GRAPHQL_PATH, load_schema())
    lines += _fields("klinket's own schema", EXTENSION_PATH, load_extension())
    for words, doors in ((_PATHS, PATH_DOORS), (_SIGN_IN, SIGN_IN_DOORS), (_PAGES, PAGE_DOORS)):
        lines += [words.rstrip("\n"), *_table("path", ((str(door), door) for door in doors), proof=doors is PAGE_DOORS)]
    lines.append(_CHANNELS.rstrip("\n"))
    for kind, path in CHANNEL_PATHS.items():
        lines += _table(f"`{path}`", ((door.name, door) for door in CHANNEL_DOORS if door.kind == kind))
    return _HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(page())
