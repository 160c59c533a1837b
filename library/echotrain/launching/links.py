"""Where to look at a job: Ray's dashboard, and W&B."""

from echotrain.launching.objects import DASHBOARD, Observed
from echotrain.launching.phase import phase_of
from echotrain.launching.platform import Platform

__all__ = ["dashboard_link", "dashboard_of", "wandb_link"]

_WANDB = "https://wandb.ai"


def dashboard_link(platform: Platform, *, namespace: str, name: str) -> str:
    """Return the address of a job's dashboard behind the operator's ingress; "" where there is none.

    Args:
        platform: Its ``dashboard`` may have ``{namespace}`` and ``{name}`` in it, and ``{cluster}``, which is not known yet.
        namespace: Of the job.
        name: Likewise.
    """
    return platform.dashboard.replace("{namespace}", namespace).replace("{name}", name)


def dashboard_of(seen: Observed) -> str:
    """Return where a job's dashboard is now, or the command that brings it to this machine; "" while there is no Ray cluster."""
    cluster = seen.status.get("rayClusterName")
    if seen.job is None or not cluster or phase_of(seen).is_final:
        return ""
    if DASHBOARD in seen.notes:
        return seen.notes[DASHBOARD].replace("{cluster}", cluster)
    # The cluster's own Service: the one that KubeRay names after the job selects pods by a label that templates may set otherwise.
    # The chart's researchers may not: whoever reaches the port may do on the cluster what its pods may.
    namespace = seen.job["metadata"]["namespace"]
    return f"who may forward ports: kubectl --namespace {namespace} port-forward service/{cluster}-head-svc 8265"


def wandb_link(platform: Platform, *, entity: str, project: str) -> str:
    """Return where the runs will be; "" where the pods have no key."""
    if not platform.wandb.enabled:
        return ""
    base = (platform.wandb.url or _WANDB).rstrip("/")
    return f"{base}/{entity}/{project}" if entity else f"{base} (project {project} of the key's own account)"
