"""`./dev bench [NAME]`: run one measurement, `main_job` without a name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

#: What measurements share.
PARTS = {"__init__", "__main__", "abuse_attacks", "abuse_credentials", "abuse_honest", "captured", "cut_flows", "load", "volume"}
NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in PARTS)

if __name__ == "__main__":
    name = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "main_job")
    if name not in NAMES:
        sys.exit(f"no such measurement: {name}; there are: {', '.join(NAMES)}")
    importlib.import_module(f"bench.{name}").main()
