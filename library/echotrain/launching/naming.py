"""Names of jobs: what Kubernetes and KubeRay take, and what a person recognises."""

import re

from echotrain.errors import LaunchError

__all__ = ["MAX_NAME", "check_name", "job_name"]

# KubeRay names a RayCluster and its services after a RayJob, and those names end at 63 characters.
MAX_NAME = 47
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def job_name(words: str, suffix: str) -> str:
    """Return a name made of words (a verb and a recipe, say) and a suffix that keeps two such jobs apart."""
    plain = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    plain = plain if plain[:1].isalpha() else f"job-{plain}"
    return check_name(f"{plain[: MAX_NAME - len(suffix) - 1].rstrip('-')}-{suffix}")


def check_name(name: str) -> str:
    """Return the name.

    Raises:
        LaunchError: KubeRay would refuse it.
    """
    if len(name) > MAX_NAME:
        raise LaunchError(f"job name {name!r}", f"has {len(name)} characters, and KubeRay takes {MAX_NAME}", "Shorten --job-name.")
    if not _DNS_1035.fullmatch(name):
        limit = "must be of small letters, digits and hyphens, begin with a letter and not end with a hyphen"
        raise LaunchError(f"job name {name!r}", limit, "Use, say, --job-name knee-x4.")
    return name
