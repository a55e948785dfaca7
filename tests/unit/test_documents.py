"""The documents say what the code does: words, numbers, limits, commands and links in *.md are compared with it."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import msgspec
import pytest

from klinket.cli.exit_codes import CANNOT_EXECUTE, EXIT_CODES, INTERNAL, NOT_FOUND, USAGE
from klinket.cli.main import klinket
from klinket.client.capture import connects, http_connect, socks5
from klinket.client.capture.namespace import rules
from klinket.client.capture.nfqueue import Verdict
from klinket.controller import head_guard, http_status
from klinket.controller.app.store_errors import StoreUnavailable
from klinket.controller.graphql.schema import load_schema
from klinket.controller.trust import KeyPurpose
from klinket.domain import errors, service_key
from klinket.domain.errors import KlinketError
from klinket.domain.flow import FlowFailure
from klinket.relay.limits import RelayLimits
from klinket.wire import control, relay
from klinket.wire.inventory import ConnectorEntry, Grant, RelayEntry, RelayTicket, ResourceEntry
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import FAILURE_NUMBERS
from klinket.wire.relay import RelayAnswer

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WITH_LIMITS = ("limits.md", "wire.md", "admin-api.md")

_ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)
_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r'^\s+code(?:: ClassVar\[str\])? = "([a-z-]+)"', re.MULTILINE)
#: `klinket` where a shell would run it: with or without a path, not as a name in another word.
_COMMAND = re.compile(r'(?:(?<=/bin/)|(?<![\w./=:@"-]))klinket[ \t]+(?=\S)(.*)')
_END_OF_COMMAND = {"--", "|", ">", "2>", "&", "&&", "||", ";", "<", "├──▶"}


def read(name: str) -> str:
    return (REFERENCE / name).read_text()


def rows(text: str) -> Iterator[list[str]]:
    for match in _ROW.finditer(text):
        yield [cell.strip() for cell in match[1].split("|")]


def prose(path: Path) -> str:
    return _FENCE.sub("", path.read_text())


# ---- words and numbers


def domain_codes() -> set[str]:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, KlinketError)]
    return {kind.code for kind in kinds}


def codes_in_source() -> set[str]:
    return {word for path in (ROOT / "src").rglob("*.py") for word in _CODE.findall(path.read_text())}


def documented_codes() -> set[str]:
    return {word for row in rows(read("errors.md")) for word in _INLINE.findall(row[0])}


def test_every_code_word_is_explained() -> None:
    every = domain_codes() | codes_in_source() | {failure.value for failure in FlowFailure}
    assert every - documented_codes() == set()


def test_no_code_word_is_explained_that_does_not_exist() -> None:
    assert documented_codes() - codes_in_source() - {failure.value for failure in FlowFailure} == set()


def connect_outcome(failure: FlowFailure) -> str:
    verdict, mark = connects.QueueRules().verdict(failure)
    if verdict is Verdict.DROP:
        return "ETIMEDOUT"
    told = {
        rules.MARK_REFUSE: "ECONNREFUSED",
        rules.MARK_UNREACHABLE: "EHOSTUNREACH",
        rules.MARK_FORBIDDEN: "ECONNREFUSED, over IPv6 EACCES",
    }
    return told[mark]


@pytest.mark.parametrize("failure", list(FlowFailure), ids=lambda failure: failure.value)
def test_every_answer_to_a_refused_flow_is_as_documented(failure: FlowFailure) -> None:
    found = [row for row in rows(read("errors.md")) if row[0] == f"`{failure.value}`" and len(row) == 6]
    assert len(found) == 1
    status = http_connect._STATUS[failure].partition(" ")[0]
    reply = socks5._REPLIES.get(failure, socks5.Reply.FAILED)
    assert found[0][1:4] == [status, str(int(reply)), connect_outcome(failure)]


def test_every_exit_code_is_explained() -> None:
    table = {(row[1].strip("`"), row[0]) for row in rows(read("exit-codes.md")) if row[0].isdigit()}
    assert {(word, str(code)) for word, code in EXIT_CODES.items()} <= table
    numbers = {int(code) for _, code in table}
    assert {USAGE, INTERNAL, CANNOT_EXECUTE, NOT_FOUND} <= numbers
    assert {int(code) for word, code in table if word in EXIT_CODES} == set(EXIT_CODES.values())


def test_every_failure_number_is_in_the_wire_document() -> None:
    cells = [row for row in rows(read("wire.md")) if len(row) == 4 and row[2].isdigit() and not row[0].strip("0123456789")]
    written = {cell[at + 1].strip("`"): int(cell[at]) for cell in cells for at in (0, 2) if cell[at]}
    assert written == {failure.value: number for failure, number in FAILURE_NUMBERS.items()}


@pytest.mark.parametrize("numbers", [FrameType, RelayAnswer])
def test_every_frame_type_and_relay_answer_is_in_the_wire_document(numbers: type[FrameType] | type[RelayAnswer]) -> None:
    written = {(row[0], row[1]) for row in rows(read("wire.md")) if len(row) > 1}
    assert {(str(int(one)), one.name) for one in numbers} <= written


def test_the_lifecycle_diagram_is_the_generated_one() -> None:
    assert _FENCE.search(read("service-key-lifecycle.md"))
    assert [block.strip() for block in _FENCE.findall(read("service-key-lifecycle.md"))] == [service_key.diagram()]


def test_every_field_of_the_admin_api_is_listed() -> None:
    listed = set(_INLINE.findall(read("admin-api.md")))
    schema = load_schema()
    assert schema.query_type is not None
    assert schema.mutation_type is not None
    assert {*schema.query_type.fields, *schema.mutation_type.fields} <= listed


# ---- what parts say to the controller


def messages() -> list[type[msgspec.Struct]]:
    return [*control.Message.__subclasses__(), *relay.RelayMessage.__subclasses__()]


def fields_of(kind: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(kind)}


def names_in(text: str) -> set[str]:
    return {word for word in _INLINE.findall(text) if re.fullmatch(r"\w+", word)}


@pytest.mark.parametrize("kind", messages(), ids=lambda kind: kind.__name__)
def test_every_message_of_a_live_channel_is_documented_with_its_fields(kind: type[msgspec.Struct]) -> None:
    tag = kind.__struct_config__.tag
    found = [row for row in rows(read("control.md")) if row[0] == f"`{tag}`"]
    assert [names_in(row[2]) for row in found] == [fields_of(kind)]


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        ("| resource |", ResourceEntry),
        ("| connector |", ConnectorEntry),
        ("| relay |", RelayEntry),
        ("| ticket |", RelayTicket),
        ("| grant |", Grant),
        ("- `limits`:", control.AccountLimits),
        ("- A flow of a receipt:", control.CutFlow),
        ("- A flow event:", control.FlowEvent),
    ],
)
def test_every_object_in_a_message_is_documented_with_its_fields(beginning: str, kind: type[msgspec.Struct]) -> None:
    (text,) = re.findall(rf"^{re.escape(beginning)}(.+?)(?=^[-|#\n])", read("control.md"), re.MULTILINE | re.DOTALL)[:1]
    assert fields_of(kind) <= names_in(text)


def test_every_kind_of_token_is_documented() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src" / "klinket" / "wire").glob("*.py"))
    written = {row[1] for row in rows(read("control.md")) if len(row) == 6}
    assert {f"`{typ}`" for typ in re.findall(r'^[A-Z_]*TYP = "(.+)"$', source, re.MULTILINE)} == written - {"`typ`", "---"}


def test_every_purpose_of_a_signing_key_is_documented() -> None:
    (row,) = [row for row in rows(read("control.md")) if row[0] == "`GET /.well-known/jwks.json`"]
    assert names_in(row[2]) == {purpose.value for purpose in KeyPurpose}


def test_every_status_of_a_refusal_is_documented() -> None:
    (told,) = re.findall(r"^A refusal is .+?\n\n", read("control.md"), re.MULTILINE | re.DOTALL)
    statuses = {status for _, status in http_status._BY_KIND} | set(http_status._BY_CODE.values())
    assert {str(status) for status in statuses} <= set(re.findall(r"\b\d{3}\b", told))
    refusals = [head_guard.ControllerBehind, *StoreUnavailable.__subclasses__()]
    unavailable = {kind.code for kind in refusals} - {"store-in-use"}  # that one ends the start
    assert unavailable | set(http_status._BY_CODE) <= set(_INLINE.findall(told))


# ---- limits


def value_of(name: str) -> Any:
    """Return the constant `package.module.NAME` or `package.module.NAME.attribute` below klinket."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(["klinket", *parts[:count]]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found() if found is RelayLimits else found, part)
        return found
    raise AssertionError(f"no module of {name}")


def documented_limits() -> list[tuple[str, str, str]]:
    found = []
    for document in WITH_LIMITS:
        for row in rows(read(document)):
            name = re.fullmatch(r"`([a-z_.]+\.\w+(?:\.\w+)*)`", row[0])
            if name and len(row) == 3:
                found.append((document, name[1], row[1]))
    return found


def test_limits_are_found_in_the_documents() -> None:
    assert len(documented_limits()) > 100


@pytest.mark.parametrize(("document", "name", "written"), documented_limits())
def test_a_limit_has_the_documented_value(document: str, name: str, written: str) -> None:
    assert float(written) == float(value_of(name)), document


def test_every_limit_of_relay_and_connector_is_documented() -> None:
    from klinket.connector import limits

    documented = {name for _, name, _ in documented_limits()}
    connector = {f"connector.limits.{name}" for name in vars(limits) if name.isupper()}
    relay = {f"relay.limits.RelayLimits.{name}" for name in RelayLimits.__dataclass_fields__}
    assert connector | relay <= documented


def test_what_is_named_a_maximum_is_documented() -> None:
    """Of what moves bytes, on both sides of a connection: there the outside world decides how much comes."""
    documented = {name for _, name, _ in documented_limits()}
    found = set()
    for path in (ROOT / "src" / "klinket").rglob("*.py"):
        module = path.relative_to(ROOT / "src" / "klinket").with_suffix("").parts
        if module[0] in ("client", "connector", "domain", "net", "relay", "wire"):
            names = [one.id for one in assigned(path) if one.id.startswith(("MAX_", "MOST_"))]
            found |= {".".join((*module, name)) for name in names}
    assert len(found) > 100
    assert found <= documented, found - documented


def assigned(path: Path) -> Iterator[ast.Name]:
    """Yield the names that a module gives values to."""
    for statement in ast.parse(path.read_text()).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            yield from (one for one in ast.walk(target) if isinstance(one, ast.Name))


# ---- links


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(path: Path) -> None:
    broken = []
    for target in _LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        leads_to = (path.parent / name).resolve() if name else path
        if not leads_to.exists() or (anchor and anchor not in anchors(leads_to)):
            broken.append(target)
    assert not broken


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as they are made of their text."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


# ---- commands


def commands(path: Path) -> Iterator[str]:
    """Yield what follows `klinket` wherever a document shows it as a command."""
    text = path.read_text()
    for block in _FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if not line.lstrip().startswith(("#", "klinket:")):
                yield from (match[1] for match in _COMMAND.finditer(line))
    for inline in _INLINE.findall(_FENCE.sub("", text)):
        yield from (match[1] for match in _COMMAND.finditer(inline))


def words(text: str) -> list[str]:
    """Return the words of one command, up to what ends it in a shell."""
    try:
        found = shlex.split(text, comments=True)
    except ValueError:  # the end of a quotation is on a later line, or is no shell at all
        found = text.split()
    for at, word in enumerate(found):
        if word in _END_OF_COMMAND or word.endswith(";"):
            return found[:at] + ([word[:-1]] if word.endswith(";") and word != ";" else [])
    return found


def problem(text: str) -> str | None:
    """Return what is wrong with a command line, or None."""
    command: click.Command = klinket
    context = click.Context(klinket, info_name="klinket")
    left = words(text)
    while left:
        word = left.pop(0)
        if word.startswith("-") and len(word) > 1:
            name, equals, _ = word.partition("=")
            options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
            option = next((one for one in options if name in (*one.opts, *one.secondary_opts)), None)
            if option is None:
                return f"{context.command_path} has no option {name}"
            if not (option.is_flag or option.count or equals) and left:
                left.pop(0)
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            if found is None:
                return None if word in ("...", "…") else f"{context.command_path} has no command {word}"
            context = click.Context(found, info_name=word, parent=context)
            command = found
    return None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_shown_exists_with_its_options(path: Path) -> None:
    assert [found for text in commands(path) if (found := problem(text))] == []


def commands_in_source() -> list[str]:
    """Return what follows `klinket` in every text of the source that shows it as a command; most are hints."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "src").rglob("*.py")]
    texts = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [found[1] for text in texts if isinstance(text, str) for found in re.finditer(r"`klinket ([^`]+)`", text)]


def test_every_command_a_hint_names_exists_with_its_options() -> None:
    assert len(commands_in_source()) > 10
    assert [found for text in commands_in_source() if (found := problem(text))] == []


def test_commands_are_found_in_the_documents() -> None:
    shown = [text for path in DOCUMENTS for text in commands(path)]
    assert len(shown) > 60
    assert any(text.startswith("connector --tokens-file %d/tokens") for text in shown)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run --key-file k.json -- psql --no-such", None),
        ("run --keyfile k.json -- true", "klinket run has no option --keyfile"),
        ("admin --url https://x service key generate ci --days 3 > k.json", None),
        ("admin service keys list", "klinket admin service has no command keys"),
        ("up", "klinket has no command up"),
    ],
)
def test_a_wrong_command_is_noticed(text: str, told: str | None) -> None:
    assert problem(text) == told
