"""Imports point inward, roles do not know each other, and the relay's blindness is a property of the build."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "klinket"
ROLES = ("controller", "connector", "relay", "client")
IMPURE = {"asyncio", "socket", "time", "random", "secrets", "os", "threading", "subprocess", "ssl", "selectors"}
MAX_MODULE_LINES = 400
#: All that a relay's process may load of klinket, directly or through others. No keys of pipes, no links, no rules of access:
#: what is not loaded cannot be used by mistake. Whoever adds a line here gives the relay something to know.
RELAY_MAY_LOAD = {
    "klinket.domain.errors",
    "klinket.domain.flow",
    "klinket.domain.identifiers",
    "klinket.domain.readiness",
    "klinket.domain.newcomers",
    "klinket.domain.shares",
    "klinket.net.backoff",
    "klinket.net.channel",
    "klinket.net.clock",
    "klinket.net.collector",
    "klinket.net.datagram_socket",
    "klinket.net.deadlines",
    "klinket.net.descriptors",
    "klinket.net.exposition",
    "klinket.net.files",
    "klinket.net.forks",
    "klinket.net.metrics_endpoint",
    "klinket.net.poll",
    "klinket.net.rounds",
    "klinket.net.segments",
    "klinket.net.sockets",
    "klinket.net.sources",
    "klinket.net.splice",
    "klinket.net.tasks",
    "klinket.net.tls",
    "klinket.net.undumpable",
    "klinket.net.worker_channel",
    "klinket.net.workers",
    "klinket.wire.datagram_header",
    "klinket.wire.relay",
    "klinket.wire.relay_datagram",
    "klinket.wire.signing",
    "klinket.wire.ticket",
    "klinket.wire.version",
}


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if "migrations/versions" not in path.as_posix())


def dotted(path: Path) -> str:
    parts = ["klinket", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Yield every module imported anywhere in the file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            for alias in node.names:
                candidate = SOURCE.joinpath(*f"{base}.{alias.name}".split(".")[1:])
                is_module = base.startswith("klinket") and (candidate.with_suffix(".py").exists() or candidate.is_dir())
                yield f"{base}.{alias.name}" if is_module else base


def is_pure(module: str) -> bool:
    return module.startswith(("klinket.domain", "klinket.wire", "klinket.controller.app")) or module.split(".")[-1] == "core"


def below(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_point_inward(path: Path) -> None:
    module = dotted(path)
    for imported in imports(path):
        if below(module, "klinket.domain"):
            assert not imported.startswith("klinket") or below(imported, "klinket.domain"), imported
        elif below(module, "klinket.wire"):
            assert not imported.startswith("klinket") or below(imported, "klinket.domain", "klinket.wire"), imported
        elif below(module, "klinket.net"):
            assert not imported.startswith("klinket") or below(imported, "klinket.domain", "klinket.wire", "klinket.net"), (
                imported
            )
        elif below(module, "klinket.controller.app"):
            assert not imported.startswith("klinket") or below(
                imported, "klinket.domain", "klinket.wire", "klinket.controller.app"
            ), imported
        if is_pure(module):
            assert imported.split(".")[0] not in IMPURE, f"{module} imports {imported}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_roles_do_not_import_each_other_nor_the_shells_above_them(path: Path) -> None:
    module = dotted(path)
    role = next((role for role in ROLES if below(module, f"klinket.{role}")), None)
    for imported in imports(path):
        if role is not None:
            others = [f"klinket.{other}" for other in ROLES if other != role]
            assert not below(imported, *others, "klinket.cli", "klinket.sdk"), f"{module} imports {imported}"


def loaded_by(package: str) -> dict[str, str]:
    """Return every module of klinket that a package brings along, beside its own, with the module that imports it."""
    paths = {dotted(path): path for path in modules()}
    reached: dict[str, str] = {}
    waiting = [module for module in paths if below(module, package)]
    while waiting:
        module = waiting.pop()
        for imported in imports(paths[module]):
            if imported in paths and imported not in reached and not below(imported, package):
                reached[imported] = module
                waiting.append(imported)
    return reached


def test_a_relay_loads_only_what_keeps_it_blind() -> None:
    loaded = {imported: module for imported, module in loaded_by("klinket.relay").items() if imported not in RELAY_MAY_LOAD}
    assert not loaded, f"the relay must not load these (each with the module that imports it): {loaded}"
    assert set(loaded_by("klinket.relay")) == RELAY_MAY_LOAD, "the list names what a relay does not load"


@pytest.mark.parametrize("path", [p for p in modules() if p.stem == "core"], ids=dotted)
def test_a_core_imports_rules_and_formats_and_no_adapter(path: Path) -> None:
    own_limits = dotted(path).removesuffix("core") + "limits"
    for imported in imports(path):
        if imported.startswith("klinket"):
            assert below(imported, "klinket.domain", "klinket.wire", own_limits), f"{dotted(path)} imports {imported}"


@pytest.mark.parametrize("path", [p for p in modules() if not below(dotted(p), "klinket.cli")], ids=dotted)
def test_only_the_command_line_imports_what_composes_a_role(path: Path) -> None:
    for imported in imports(path):
        assert imported.split(".")[-1] != "serve" or not imported.startswith("klinket"), f"{dotted(path)} imports {imported}"


def test_the_domain_uses_the_standard_library_only() -> None:
    import sys

    for path in (SOURCE / "domain").rglob("*.py"):
        for imported in imports(path):
            top = imported.split(".")[0]
            assert top == "klinket" or top in sys.stdlib_module_names, f"{dotted(path)} imports {imported}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_a_module_holds_one_noun(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_MODULE_LINES


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_no_module_is_a_drawer(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    assert ast.get_docstring(ast.parse(path.read_text())), f"{dotted(path)} has no docstring"
