"""`./dev fuzz [TARGET] --minutes N`: inputs a parser answers wrongly, led by coverage (atheris); keeps a small corpus."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import target as fuzz
from tests.fuzz.target import MAX_KEPT, MAX_KEPT_BYTES, Target


def targets() -> dict[str, Target]:
    """Return all targets by name."""
    from tests.fuzz import binary_targets, text_targets

    return {one.name: one for one in (*binary_targets.TARGETS, *text_targets.TARGETS)}


def fuzz_here(name: str, arguments: list[str]) -> None:
    """Fuzz in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["klinket"]):
        found = targets()[name]
    atheris.Setup([f"fuzz {name}", *arguments], found.run)
    atheris.Fuzz()


def keep(found: Target, directory: Path) -> None:
    """Write the smallest inputs that have reached something new into the kept corpus."""
    seeds = set(found.seeds())
    new = {data for path in directory.iterdir() if 0 < len(data := path.read_bytes()) <= MAX_KEPT_BYTES} - seeds
    kept = sorted(new, key=lambda data: (len(data), data))[:MAX_KEPT]
    fuzz.CORPUS.mkdir(exist_ok=True)
    (fuzz.CORPUS / f"{found.name}.txt").write_text("".join(f"{data.hex()}\n" for data in kept))


def fuzz_beside(found: Target, minutes: float) -> bool:
    """Fuzz in a process of its own from seeds and kept corpus; returns whether nothing was found."""
    with tempfile.TemporaryDirectory(prefix="klinket-fuzz-") as made:
        corpus, artifacts = (Path(made) / part for part in ("corpus", "found"))
        for directory in (corpus, artifacts):
            directory.mkdir()
        for number, data in enumerate([*found.seeds(), *found.kept]):
            (corpus / str(number)).write_bytes(data)
        options = [f"-max_total_time={max(1, round(minutes * 60))}", f"-artifact_prefix={artifacts}{os.sep}", "-timeout=10"]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.fuzz",
                found.name,
                "--here",
                "--",
                *options,
                "-max_len=4096",
                "-verbosity=0",
                str(corpus),
            ],
            capture_output=True,
            text=True,
        )
        bad = sorted(artifacts.iterdir())
        if done.returncode or bad:
            print(f"{found.name}: FOUND\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
            for path in bad:
                print(f"input: {path.read_bytes()[:4096].hex()}")
            return False
        keep(found, corpus)
        print(f"{found.name}: nothing found in {minutes:g} min, {len(list(corpus.iterdir()))} inputs, {len(found.kept)} kept")
        return True


def main() -> int:
    if sys.argv[2:3] == ["--here"]:  # a process of fuzz_beside: the rest is libFuzzer's
        fuzz_here(sys.argv[1], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__, epilog="example: ./dev fuzz frames --minutes 0.2")
    parser.add_argument(
        "target",
        nargs="?",
        choices=sorted(targets()),
        metavar="TARGET",
        help=f"all of them without one: {', '.join(sorted(targets()))}",
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target, one after another (1)")
    given = parser.parse_args()
    chosen = [targets()[given.target]] if given.target else list(targets().values())
    good = [fuzz_beside(one, given.minutes) for one in chosen]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
