"""Check everything that only a GPU can tell, without Ray and without a network, into one JSON file; see echotrain.benchmarks.gpu_check."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from echotrain.benchmarks.gpu_check import STEPS, check

EXAMPLES = """examples:
  make gpu-check                          every step, under 8 minutes; figures in build/gpu-check.json
  make gpu-check PYTHON=python3           by this Python, where there is no .venv
  make gpu-check DRY=1                    every step on tiny sizes on a CPU
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Take the steps and print what came; 1 where one did not pass."""
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.gpu_check", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="tiny sizes on a CPU: a check of the check")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-check.json"), help="the file of figures (build/gpu-check.json)")
    parser.add_argument("--only", nargs="+", default=[], choices=STEPS, metavar="STEP", help=f"of {', '.join(STEPS)}")
    options = parser.parse_args(argv)
    found = check(options.out, dry=options.dry, only=options.only, tell=lambda line: print(line, flush=True))
    print(json.dumps(found.result["goals"], indent=1))
    print(f"{options.out}, after {found.result['seconds']} s")
    return 0 if found.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
