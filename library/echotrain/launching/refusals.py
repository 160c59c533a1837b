"""What the API server's refusal of a RayJob comes from, and who can help."""

import re

from echotrain.errors import ClusterError
from echotrain.launching.client import ApiRefusalError

__all__ = ["explained"]

# Of Kubernetes' ResourceQuota; each list is of NAME=QUANTITY with commas between.
_OVER_QUOTA = re.compile(r"exceeded quota: (\S+), requested: (\S+), used: (\S+), limited: (\S+)")
_NUM_JOBS = "count/rayjobs.ray.io"


def explained(error: ApiRefusalError, *, namespace: str) -> ClusterError:
    """Return the error that says so; the same one where nothing more is known."""
    text = error.limit
    if found := _OVER_QUOTA.search(text):
        return _over_quota(*found.groups(), namespace=namespace)
    if "unknown field" in text:
        limit = f"has fields that the cluster's KubeRay CRDs do not know: {text.partition('strict decoding error: ')[2] or text}"
        return ClusterError("the template", limit, "Ask the operator to apply the CRDs of the KubeRay that the chart names.")
    if error.status == 404:
        return ClusterError("RayJobs", "are not known to the cluster", "Ask the operator to install the KubeRay operator with its CRDs.")
    return error


def _over_quota(quota: str, requested: str, used: str, limited: str, *, namespace: str) -> ClusterError:
    asked, has, may = (dict(each.split("=", 1) for each in part.split(",")) for part in (requested, used, limited))
    told = ", ".join(f"{has.get(name)} of {may.get(name)} {name} are used, and {more} more asked for" for name, more in asked.items())
    if _NUM_JOBS in asked:
        remedy = (
            "Jobs that are over count until they are deleted: python -m ray_jobs.launch prune deletes your old ones "
            "(--older-than 1d for more of them), or ask the operator."
        )
    else:
        remedy = "Wait until other jobs end, or ask the operator for more."
    return ClusterError(f"quota {quota} of namespace {namespace}", f"is used up: {told}", remedy)
