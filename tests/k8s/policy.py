"""A policy scan of rendered pods: our own checks and checkov's, against a reviewed list of exceptions.

findings = [*scan(pods), *scan_with_checkov(pods, find_checkov())]
judgement = judge(findings, read_exceptions(path))
assert not judgement.unargued and not judgement.stale
"""

import fnmatch
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echotrain.errors import ConfigError, ResourceError
from tests.k8s.manifests import read_manifests
from tests.k8s.pod_checks import POD_CHECKS
from tests.k8s.tools import cache_folder

__all__ = ["Exemption", "Finding", "Judgement", "find_checkov", "judge", "read_exceptions", "scan", "scan_with_checkov"]


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is held against one pod.

    Attributes:
        check: Name of a check of ours, or checkov's id (CKV_K8S_14).
        pod: Name of the synthetic Pod.
        detail: What about it.
    """

    check: str
    pod: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Exemption:
    """A check that need not hold.

    Attributes:
        check: Its name.
        pods: Which pods, as a glob pattern.
        why: The argument, for a reviewer.
    """

    check: str
    pods: str
    why: str

    def covers(self, finding: Finding) -> bool:
        """Return whether it is about a finding."""
        return self.check == finding.check and fnmatch.fnmatchcase(finding.pod, self.pods)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a reviewed list makes of findings.

    Attributes:
        unargued: Findings that no exemption covers.
        stale: Exemptions that cover nothing any more, to be removed.
    """

    unargued: list[Finding]
    stale: list[Exemption]


def scan(pods: Iterable[dict[str, Any]]) -> list[Finding]:
    """Return what our own checks have against pods."""
    return [Finding(name, pod["metadata"]["name"], said) for pod in pods for name, check in POD_CHECKS.items() for said in check(pod)]


def find_checkov() -> Path:
    """Return the Python of checkov's environment: what ``ECHOTRAIN_CHECKOV`` names, else that of ``make tools``.

    Raises:
        ResourceError: There is none.
    """
    named = os.environ.get("ECHOTRAIN_CHECKOV", "")
    python = Path(named) if named else cache_folder() / "checkov" / "bin" / "python"
    if not os.access(python, os.X_OK) or not (named or (cache_folder() / "checkov" / ".pins").is_file()):
        remedy = "Run make tools, or let ECHOTRAIN_CHECKOV name the Python of an environment that has it."
        raise ResourceError("checkov", f"is not at {python}", remedy)
    return python


def scan_with_checkov(pods: Iterable[dict[str, Any]], python: Path, beside: Iterable[dict[str, Any]] = ()) -> list[Finding]:
    """Return what checkov has against pods; it asks nobody on the network.

    Args:
        pods: Synthetic Pods, each of another name.
        python: Of an environment that has checkov.
        beside: Documents that it judges pods by: NetworkPolicies.

    Raises:
        RuntimeError: It failed, or gave no report.
    """
    with tempfile.TemporaryDirectory() as folder:
        for document in (*pods, *beside):
            Path(folder, f"{document['metadata']['name']}.json").write_text(json.dumps(document))
        command = [python, "-m", "checkov.main", "--framework", "kubernetes", "--skip-download", "--compact", "--quiet", "--output", "json"]
        # Its exit status says whether there are findings. HOME is where it would look for a configuration of the user's.
        env = {"PATH": os.environ["PATH"], "HOME": folder, "LOG_LEVEL": "ERROR"}
        done = subprocess.run([*command, "--directory", folder], capture_output=True, text=True, env=env, cwd=folder, check=False)
    try:
        report = json.loads(done.stdout)
        failed = report["results"]["failed_checks"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RuntimeError(f"checkov gave no report: {(done.stderr or done.stdout)[-500:]}") from error
    return sorted(Finding(check["check_id"], Path(check["file_path"]).stem, check["check_name"]) for check in failed)


def read_exceptions(path: Path) -> list[Exemption]:
    """Return the reviewed list: a mapping of CHECK, or CHECK and a glob of pods ("CKV_K8S_38 *-head"), to the reason.

    Raises:
        ConfigError: An entry has no reason.
    """
    entries = [item for document in read_manifests(path.read_text()) for item in document.items()]
    exemptions = []
    for key, why in entries:
        check, _, pods = key.partition(" ")
        if not isinstance(why, str) or len(why.split()) < 3:
            raise ConfigError(f"{path.name}: {key}", "has no reason that a reviewer could judge", "Say why the check need not hold.")
        exemptions.append(Exemption(check=check, pods=pods.strip() or "*", why=why))
    return exemptions


def judge(findings: Iterable[Finding], exemptions: Iterable[Exemption]) -> Judgement:
    """Return the findings that are not argued, and the arguments without a finding."""
    found, exempted = list(findings), list(exemptions)
    return Judgement(
        unargued=sorted({finding for finding in found if not any(one.covers(finding) for one in exempted)}),
        stale=[one for one in exempted if not any(one.covers(finding) for finding in found)],
    )
