"""What a job names must be where its pods are: not on the laptop that it is launched from."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from echotrain.errors import LaunchError
from echotrain.storage.open import local_path

__all__ = ["check_places", "shared_mounts"]

# Volumes that live and die with a pod, or hold no data of a job.
_OWN = {"emptyDir", "configMap", "secret", "projected", "downwardAPI", "ephemeral"}


def shared_mounts(manifest: Mapping[str, Any], group: str) -> list[str]:
    """Return the paths at which the head and the pods of a group have volumes that outlive them."""
    cluster = manifest["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"]["template"]["spec"]]
    pods += [each["template"]["spec"] for each in cluster.get("workerGroupSpecs") or [] if each["groupName"] == group]
    found = [_shared_in(pod) for pod in pods]
    return sorted(set.intersection(*found))


def check_places(places: Mapping[str, str], mounts: list[str]) -> None:
    """Check URIs by what stands before them on the command line: ``storage=``, ``--to ``.

    Raises:
        LaunchError: One is a path that pods do not have.
    """
    for name, uri in places.items():
        if not uri:
            raise LaunchError(f"{name}''", "names nothing", "Give an s3:// URI.")
        path = local_path(uri)
        if path is not None and not any(PurePosixPath(path.as_posix()).is_relative_to(mount) for mount in mounts):
            shared = f" or a path below {', '.join(mounts)}, which the pods share" if mounts else ""
            raise LaunchError(f"{name}{uri}", "is a path of this machine, which the pods do not have", f"Give an s3:// URI{shared}.")


def _shared_in(pod: Mapping[str, Any]) -> set[str]:
    shared = {volume["name"] for volume in pod.get("volumes") or [] if not _OWN & set(volume)}
    return {mount["mountPath"] for mount in pod["containers"][0].get("volumeMounts") or [] if mount["name"] in shared}
