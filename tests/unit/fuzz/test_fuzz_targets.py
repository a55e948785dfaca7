"""Every parser of outsiders' bytes has a fuzz target, and each target passes over its kept corpus and changes of it."""

from __future__ import annotations

import ast
import importlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from klinket.wire import access_token, signing
from tests.fuzz import binary_targets, text_targets
from tests.fuzz.target import MAX_KEPT, MAX_KEPT_BYTES, Target

SOURCE = Path(__file__).resolve().parents[3] / "src" / "klinket"
TARGETS: tuple[Target, ...] = (*binary_targets.TARGETS, *text_targets.TARGETS)
#: Changed inputs tried of each target.
CHANGES = 1_500
#: Where outsiders' bytes are parsed, and how functions that do it are called.
LAYERS = ("domain", "wire", "net", "client")
VERBS = re.compile(r"parse|decode|verify|unverified|from_|open|read_|canonical_|check_|checked_|answer_offer|frame_length")
TEXTS = re.compile(r"\b(bytes|str|memoryview|Mapping|dict|Iterable)\b")
#: What is called like a parser and is none, or parses what its own operator wrote.
NO_OUTSIDERS = {
    "client.daemon.paths:Paths.from_environment": "its own environment",
    "client.forward:parse": "arguments of a command line",
    "net.datagram_reads:read_key": "what the kernel says beside a datagram",
    "net.pump_state:PumpState.decode": "another process of the same part",
    "net.pump_worker:decode_end": "another process of the same part",
    "net.pump_worker:decode_moved": "another process of the same part",
    "domain.account_limits:check_limit": "numbers that the schema has checked",
    "domain.account_limits:check_seats": "numbers that the schema has checked",
    "domain.connector:check_services_allowed": "rows of the controller's database",
}


def parsers() -> Iterator[str]:
    """Yield "module:qualified name" of every public function and method called like a parser that is given text or bytes."""
    for path in sorted(SOURCE.rglob("*.py")):
        module = path.relative_to(SOURCE).with_suffix("")
        if module.parts[0] not in LAYERS:
            continue
        for node in ast.parse(path.read_text()).body:
            inner = node.body if isinstance(node, ast.ClassDef) else [node]
            for one in inner:
                if not isinstance(one, ast.FunctionDef) or not VERBS.match(one.name):
                    continue
                given = [ast.unparse(a.annotation) for a in (*one.args.args, *one.args.kwonlyargs) if a.annotation]
                if any(map(TEXTS.search, given)):
                    name = f"{node.name}.{one.name}" if isinstance(node, ast.ClassDef) else one.name
                    yield f"{'.'.join(module.parts)}:{name}"


def test_every_parser_of_outsiders_bytes_has_a_fuzz_target() -> None:
    covered = {parser for target in TARGETS for parser in target.parsers}
    missing = set(parsers()) - covered - NO_OUTSIDERS.keys()
    assert not missing, f"write a target for them in tests/fuzz, or say in NO_OUTSIDERS why not: {sorted(missing)}"


def test_the_search_for_parsers_finds_them() -> None:
    assert {"wire.pipe:parse_hello", "wire.pipe:Opener.open_into", "net.link:Leaf.parse", "domain.address:parse_ip"} <= set(
        parsers()
    )


@pytest.mark.parametrize("parser", sorted({parser for target in TARGETS for parser in target.parsers}))
def test_a_parser_that_a_target_names_exists(parser: str) -> None:
    module, name = parser.split(":")
    found = importlib.import_module(f"klinket.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)


def changed(rng: random.Random, inputs: list[bytes]) -> bytes:
    """Return one of the inputs with bits, bytes or parts of it changed, or a piece of another put in."""
    data = bytearray(rng.choice(inputs))
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        match rng.randrange(5):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.randint(1, 9)]
            case 2:
                data[at:at] = rng.choice((b"\0", b"\xff", b'"', b"{", b"[", b"-", b"9" * 25, b"\\ud800", b".", rng.randbytes(4)))
            case 3:
                other = rng.choice(inputs)
                begin = rng.randint(0, len(other))
                data[at : at + rng.randint(0, 9)] = other[begin : begin + rng.randint(1, 40)]
            case _:
                del data[at:]
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_target_passes_over_its_corpus_and_changes_of_it(target: Target) -> None:
    inputs = [b"", *target.seeds(), *target.kept]
    for data in inputs:
        target.run(data)
    rng = random.Random(target.name)
    for number in range(CHANGES):
        data = changed(rng, inputs)
        try:
            target.run(data)
        except BaseException as error:
            raise AssertionError(f"change {number}: {data.hex()}") from error


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_kept_corpus_stays_small(target: Target) -> None:
    assert len(target.kept) <= MAX_KEPT
    assert all(len(data) <= MAX_KEPT_BYTES for data in target.kept)


def test_claims_begin_with_tokens_that_are_believed() -> None:
    """Otherwise the target would not get behind the first check."""
    for seed in text_targets._claim_seeds():
        header = {"jwk": signing.public_jwk(text_targets._KEY.public_key)}
        typ = text_targets._TYPES[seed[0]]
        token = signing.sign(text_targets._KEY, typ, json.loads(seed[1:]), header)
        believed = [one for one in text_targets._verify_all(token) if one not in (None, text_targets._KEY.kid)]
        assert believed or typ == access_token.PROOF_TYP, typ  # a proof says nothing beyond itself
