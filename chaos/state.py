"""What is left when the trial is over: the database, the audit, processes, rules."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from chaos.network import sh
from chaos.world import World


def audit(world: World) -> Iterator[str]:
    """Yield what is wrong with the audit's chain, while the controller runs."""
    path = world.deployment.directory / "audit.jsonl.gz"
    for words in (("export", "--out", str(path)), ("verify", str(path))):
        done = world.deployment.admin_process("audit", *words)
        if done.returncode:
            yield f"audit {words[0]}: {done.stderr.strip()}"
            return


def database(world: World) -> Iterator[str]:
    """Yield what is wrong with the database, when the controller has stopped."""
    with sqlite3.connect(world.deployment.state / "klinket.db") as connection:
        for pragma in ("integrity_check", "foreign_key_check"):
            found = [row for row in connection.execute(f"PRAGMA {pragma}") if row != ("ok",)]
            if found:
                yield f"{pragma}: {found[:3]}"


def processes() -> Iterator[str]:
    """Yield what still runs in the trial's namespace of process ids besides the trial and the process that holds it."""
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if pid not in (1, os.getpid()) and words:
            yield f"still runs: {pid} {words[:120]}"


def rules(world: World) -> Iterator[str]:
    """Yield who left rules of nft, besides the trial's own, which are gone by now."""
    for name in world.network.rules():
        yield f"rules are left in {name}: {sh(*world.network.enter(name), 'nft', 'list', 'ruleset')[:200]}"


def tracebacks(world: World) -> Iterator[str]:
    """Yield the end of each log's first traceback: an error nobody had thought of."""
    for log in sorted(world.deployment.directory.glob("*.log")):
        text = log.read_text(errors="replace")
        if (count := text.count("Traceback (most recent call last)")) > 0:
            at = text.index("Traceback (most recent call last)")
            yield f"{log.name} has {count} tracebacks, the first: {text[max(0, at - 300) : at + 2500]}"
