"""Connecting to Ray: one way for every job, quiet, and with the driver's credentials passed on by hand."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from typing import Self

import ray

from echotrain.errors import ResourceError

__all__ = ["DriverEnvironment", "connect", "has_dashboard", "is_on_cluster", "reserved_gpus"]

_RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # How soon a dead worker is noticed, and how soon a signal that reached a worker runs its Python handler.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # A dead peer never answers the farewell of its process group; the default waits half a minute for it.
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "3",
}
# Where the dashboard is, for actors and workers; empty where there is none.
_DASHBOARD_VARIABLE = "ECHOTRAIN_DASHBOARD"
_FORWARDED = ("AWS_", "GOOGLE_", "AZURE_", "WANDB_", "ECHOTRAIN_")
# In either case, as every client takes them. Where the driver reaches a store through a proxy, its workers do.
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}


def connect() -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or a running local one, or start one; nothing happens when joined already.

    Raises:
        ResourceError: There is a cluster, and it cannot be joined.
    """
    for name, value in _RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    is_joined = ray.is_initialized()
    if not (is_joined and ray.get_runtime_context().get_actor_id()):  # An actor is told by its driver.
        try:
            # Where it is joined this changes nothing, and looks for no cluster.
            address = "local" if is_joined else None
            context = ray.init(address, logging_level=logging.ERROR, include_dashboard=False, ignore_reinit_error=True)
        except ConnectionError as error:
            where = os.environ.get("RAY_ADDRESS", "the cluster that runs on this machine")
            cause = (str(error.__cause__ or error).strip().splitlines() or [""])[-1]
            remedy = "Check RAY_ADDRESS and RAY_AUTH_TOKEN, or set RAY_ADDRESS=local for a cluster of its own."
            raise ResourceError(where, f"cannot be joined ({cause})", remedy) from error
        os.environ[_DASHBOARD_VARIABLE] = context.dashboard_url or ""
    if not has_dashboard():
        # A cluster of this machine's own is not preempted; watching for it costs a process.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")


def is_on_cluster() -> bool:
    """Whether a cluster's address is given, or this process is a pod's or a submitted job's: a machine that is nobody's own."""
    is_addressed = os.environ.get("RAY_ADDRESS", "") not in ("", "local")
    return is_addressed or any(name in os.environ for name in ("KUBERNETES_SERVICE_HOST", "RAY_JOB_CONFIG_JSON_ENV_VAR"))


class DriverEnvironment:
    """The storage, proxy and W&B settings of the driver's environment, for its workers, which inherit that of their node.

    It travels as an argument of the worker function and not in Ray's ``runtime_env``, which the dashboard shows to everybody. It is
    no dataclass, because Ray exports the arguments of a job with the fields of every dataclass and the ``repr`` of all else.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    @classmethod
    def here(cls) -> Self:
        """Take what is set in this process."""
        return cls({name: value for name, value in os.environ.items() if name.startswith(_FORWARDED) or name.upper() in _PROXIES})

    def apply(self) -> None:
        """Set it in this process."""
        os.environ.update(self._values)

    def digest(self) -> str:
        """Return what tells these settings from others, and says nothing of them."""
        return hashlib.blake2b(json.dumps(sorted(self._values.items())).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"DriverEnvironment({', '.join(sorted(self._values))})"


def reserved_gpus() -> float:
    """Return the GPUs that Ray keeps for this process, where it is an actor; 0 in any other."""
    context = ray.get_runtime_context() if ray.is_initialized() else None
    return float(context.get_assigned_resources().get("GPU", 0)) if context is not None and context.get_actor_id() else 0.0


def has_dashboard() -> bool:
    """Whether the cluster answers questions about its actors; one that ``connect`` started does not."""
    # As the driver has seen it: in every other process Ray's own way to ask for the address guesses one.
    return bool(os.environ.get(_DASHBOARD_VARIABLE))
