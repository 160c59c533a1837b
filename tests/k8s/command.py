"""Run kubectl, helm and their kind with a kubeconfig of the test's choice, and with nothing of the user's own settings."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["NO_CLUSTER", "run_command"]

NO_CLUSTER = Path(os.devnull)


def run_command(
    *command: str | Path,
    kubeconfig: Path = NO_CLUSTER,
    check: bool = True,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program that finds its cluster through KUBECONFIG.

    Args:
        command: Program and arguments.
        kubeconfig: By default one that names no cluster.
        check: Raise where it fails.
        stdin: Text that it reads.
        env: Added to the environment, of which HELM_* and KUBE* are left out.

    Raises:
        RuntimeError: It failed; the message has what it said.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "KUBE"))}
    done = subprocess.run(
        [str(word) for word in command],
        text=True,
        capture_output=True,
        check=False,
        # Nothing waits for somebody to type.
        **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
        env={**inherited, **(env or {}), "KUBECONFIG": str(kubeconfig)},
    )
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done
