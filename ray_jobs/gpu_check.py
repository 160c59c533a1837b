"""Check everything that only a GPU can tell, without Ray and without a network, into one JSON file; see echotrain.benchmarks.gpu_check."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from echotrain.benchmarks.gpu_check import STEPS, Check, check
from echotrain.errors import EchotrainError

EXAMPLES = """examples:
  make gpu-check                          every step, under 8 minutes; figures in build/gpu-check.json
  make gpu-check PYTHON=python3           by this Python, where there is no .venv
  make gpu-check DRY=1                    every step on tiny sizes on a CPU

exit status: 0 where every step passed; 1 where one did not, or was left out, or skipped a test; 2 where the check could not begin.
A goal that is missed is told last and is in the file (missed); it is no fault, and changes nothing of the exit status.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Take the steps and print what came; 1 where one did not pass, whatever the goals."""
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.gpu_check", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="tiny sizes on a CPU: a check of the check")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-check.json"), help="the file of figures (build/gpu-check.json)")
    parser.add_argument("--only", nargs="+", default=[], choices=STEPS, metavar="STEP", help=f"device and some of {', '.join(STEPS)}")
    options = parser.parse_args(argv)
    try:
        found = check(options.out, dry=options.dry, only=options.only, tell=lambda line: print(line, flush=True))
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found.result["goals"], indent=1))
    print(f"{options.out}, after {found.result['seconds']} s")
    print(*summary(found), sep="\n")
    return 0 if found.is_good else 1


def summary(found: Check) -> list[str]:
    """Return what is said last: which steps did not pass, and which goals are missed or have no figure."""
    steps, goals = found.result["steps"], found.result["goals"]
    unpassed = [f"{name} ({step['outcome']})" for name, step in steps.items() if step["outcome"] != "passed"]
    told = [f"NOT PASSED: {', '.join(unpassed)}" if unpassed else f"all {len(steps)} steps passed"]
    missed = [f"{name} is {goals[name]['figure']:.3g}, the goal {goals[name]['goal']:.3g}" for name in found.result["missed"]]
    told += [f"GOALS MISSED: {'; '.join(missed)}"] if missed else []
    told += [f"goals without a figure: {', '.join(found.result['unknown'])}"] if found.result["unknown"] else []
    return [*told, "all goals met"] if len(told) == 1 and goals else told


if __name__ == "__main__":
    sys.exit(main())
