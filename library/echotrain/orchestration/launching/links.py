"""Where to look at a job: Ray's dashboard, and W&B."""

from echotrain.orchestration.launching.platform import Platform

__all__ = ["dashboard_link", "wandb_link"]

_WANDB = "https://wandb.ai"


def dashboard_link(platform: Platform, *, namespace: str, name: str) -> str:
    """Return the address of a job's dashboard, or the command that brings it to this machine.

    Args:
        platform: Its ``dashboard`` may have ``{namespace}`` and ``{name}`` in it, and ``{cluster}``, which is not known yet.
        namespace: Of the job.
        name: Likewise.
    """
    if not platform.dashboard:
        # The chart's researchers may not: whoever reaches the port may do on the cluster what its pods may.
        return f"who may forward ports: kubectl --namespace {namespace} port-forward service/{name}-head-svc 8265"
    return platform.dashboard.replace("{namespace}", namespace).replace("{name}", name)


def wandb_link(platform: Platform, *, entity: str, project: str) -> str:
    """Return where the runs will be; "" where the pods have no key."""
    if not platform.wandb.enabled:
        return ""
    base = (platform.wandb.url or _WANDB).rstrip("/")
    return f"{base}/{entity}/{project}" if entity else f"{base} (project {project} of the key's own account)"
