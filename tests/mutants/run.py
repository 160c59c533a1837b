"""Break the code in known ways, one at a time, and see a test die of each.

    python -m tests.mutants.run                    all of them
    python -m tests.mutants.run readers plan       those of these lists: readers.toml, plan.toml
    python -m tests.mutants.run -k "padding"       those with this in their names

A mutant is an entry of a list beside this file, a ``[[mutant]]``: its ``name``, which says what is broken; the ``path`` of the file;
``old``, a text that occurs there once; ``new``, which takes its place; and ``tests``, the files that should notice. Each is applied in a
throw-away copy, and only its tests are run. One that lives is a test that is missing: write it, and leave the entry here.
``tests/unit/ground/test_mutants.py`` tells of entries that no longer fit the code.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mutant", "mutants_of"]

ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("library", "tests", "ray_jobs", "sweeps", "pyproject.toml")
_PASSED, _FAILED = 0, 1
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Mutant:
    """One way to break the code; see the module's text."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """Return a file's text, broken.

        Raises:
            ValueError: The text that is to go is not there, or is there twice.
        """
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.path} has {text.count(self.old)} times {self.old!r}, and 1 is needed")
        return text.replace(self.old, self.new)


def mutants_of(names: Sequence[str] = ()) -> list[Mutant]:
    """Return the mutants of some lists, by their names without ending; of all where none is named."""
    lists = [Path(__file__).with_name(f"{name}.toml") for name in names] or sorted(Path(__file__).parent.glob("*.toml"))
    entries = [entry for path in lists for entry in tomllib.loads(path.read_text())["mutant"]]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def _run_tests(copy: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run test files in a copy, up to the first failure."""
    paths = os.pathsep.join([str(copy / "library"), str(copy)])
    data = os.environ.get("ECHOTRAIN_SCANNER_DATA", str(ROOT.parent / "shared" / "data"))
    # Without written bytecode: two versions of a file within one second look alike to Python's cache.
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "ECHOTRAIN_SCANNER_DATA": data}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)


def _try(mutant: Mutant, copy: Path) -> tuple[str, str]:
    """Return what became of a mutant, ``died``, ``LIVED`` or ``BROKEN``, and by which test."""
    path = copy / mutant.path
    whole = path.read_text()
    path.write_text(mutant.applied(whole))
    try:
        ended = _run_tests(copy, mutant.tests)
    except subprocess.TimeoutExpired:
        return "died", f"no test ended within {_TIMEOUT_S} s"
    finally:
        path.write_text(whole)
    if ended.returncode == _PASSED:
        return "LIVED", ", ".join(mutant.tests)
    killers = [line.removeprefix("FAILED ").partition(" - ")[0] for line in ended.stdout.splitlines() if line.startswith("FAILED ")]
    if ended.returncode == _FAILED and killers:
        return "died", killers[0]
    # Code that cannot be imported proves nothing.
    return "BROKEN", (ended.stdout + ended.stderr).strip().splitlines()[-1]


def main(argv: Sequence[str] | None = None) -> int:
    """Try the chosen mutants and print a line for each; return 1 if one lived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=__doc__.partition("\n")[0])
    parser.add_argument("lists", nargs="*", help="lists beside this file, without .toml (default: all)")
    parser.add_argument("-k", default="", metavar="TEXT", help="only mutants with this text in their names")
    options = parser.parse_args(argv)
    chosen = [mutant for mutant in mutants_of(options.lists) if options.k.casefold() in mutant.name.casefold()]
    with tempfile.TemporaryDirectory(prefix="echotrain-mutants-") as scratch:
        copy = Path(scratch)
        for name in _COPIED:
            place = ROOT / name
            if place.is_dir():
                shutil.copytree(place, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copyfile(place, copy / name)
        ended = _run_tests(copy, sorted({test for mutant in chosen for test in mutant.tests}))
        if ended.returncode != _PASSED:
            print(f"the tests fail as they are:\n{ended.stdout[-4000:]}{ended.stderr[-1000:]}")
            return 2
        counts = {"died": 0, "LIVED": 0, "BROKEN": 0}
        for mutant in chosen:
            started = time.monotonic()
            became, by = _try(mutant, copy)
            counts[became] += 1
            print(f"{became:6} {time.monotonic() - started:4.0f} s  {mutant.name}: {by}", flush=True)
    print(", ".join(f"{count} {word.lower()}" for word, count in counts.items()))
    return int(bool(counts["LIVED"] or counts["BROKEN"]))


if __name__ == "__main__":
    sys.exit(main())
