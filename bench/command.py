"""What every measurement has as a command: options with help, and progress beside the result."""

from __future__ import annotations

import argparse
import sys


def options(name: str, about: str, example: str) -> argparse.ArgumentParser:
    """Return the parser of `./dev bench NAME`, with `--json`; `about` is shown as it is written."""
    parser = argparse.ArgumentParser(
        prog=f"./dev bench {name}",
        description=about.strip(),
        epilog=f"example: ./dev bench {name} {example}".rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="JSON on stdout, for scripts")
    return parser


def say(text: str) -> None:
    """Tell what is being done, on stderr: stdout has the result alone."""
    print(text, file=sys.stderr, flush=True)
