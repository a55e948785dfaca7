"""The security review names tests: each is there, and each of the rules has at least one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
REVIEW = ROOT / "docs" / "explanation" / "security-review.md"
RULES = 26


def every_test() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(node.name)
    return found


def test_every_test_the_review_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", REVIEW.read_text()))
    assert len(named) > 60
    assert named - every_test() == set()


def test_every_rule_has_a_test_that_proves_it() -> None:
    rows = re.findall(r"^\| (\d+) \|[^|]*\|([^|]*)\|$", REVIEW.read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, RULES + 1))
    assert all("`test_" in tests for _, tests in rows)
