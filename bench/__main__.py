"""`./dev bench [NAME]`: run one measurement, `main_job` without a name."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

from examples.demo import end_on_signals

#: What measurements share.
PARTS = {
    "__init__",
    "__main__",
    "abuse_attacks",
    "abuse_console",
    "abuse_credentials",
    "abuse_honest",
    "captured",
    "captured_resources",
    "command",
    "cut_flows",
    "herd_clients",
    "load",
    "volume",
}
NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in PARTS)


def overview() -> str:
    """Return what there is, one line each, without importing any of it."""
    rows = []
    for name in NAMES:
        text = ast.get_docstring(ast.parse((Path(__file__).parent / f"{name}.py").read_text())) or ""
        rows.append(f"  {name:<10} {text.partition(chr(10))[0]}")
    head, foot = "usage: ./dev bench [NAME] [OPTIONS]", "Without a name: main_job. Options of each: ./dev bench NAME --help"
    return "\n".join([head, "", *rows, "", foot, "", "example: ./dev bench cut --quick"])


def main() -> int:
    """Return the exit code: 2 where there is no such measurement."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"]):
        print(overview())
        return 0
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "main_job"
    if name not in NAMES:
        print(f"no such measurement: {name}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    sys.argv[1:] = arguments
    end_on_signals()  # so that what was started ends as well
    importlib.import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
