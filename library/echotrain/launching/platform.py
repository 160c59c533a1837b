"""What an operator offers to jobs: the second half of the template, ``platform.json``."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from echotrain.errors import LaunchError

__all__ = ["PLATFORM_FORMAT", "GroupSize", "Platform", "WandbOffer", "parse_platform"]

PLATFORM_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class GroupSize:
    """A group of worker pods that a job may use.

    Attributes:
        cpus, gpus: Of one pod, as Ray sees them.
        max: Pods that one job may have.
    """

    cpus: float
    gpus: int
    max: int

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus} GPU{'s' * (self.gpus != 1)} a pod, at most {self.max}"


@dataclass(frozen=True, kw_only=True)
class WandbOffer:
    """Whether the pods have a key of W&B, and where its pages are; "" is W&B's own."""

    enabled: bool = False
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What the chart was installed with, as far as it concerns jobs.

    Attributes:
        chart, echotrain, ray: Versions of the chart and of what is in its image.
        release: Of Helm.
        storage: URI below which runs are kept.
        groups: By name.
        queue, queues: Kueue's LocalQueue by default and all on offer; "" and none where Kueue is not used.
        priority, priorities: Likewise of the priority classes.
        wandb: The W&B key of the pods.
        dashboard: URL of Ray's dashboards behind an ingress; "" where there is none.
    """

    chart: str
    echotrain: str
    ray: str
    release: str
    storage: str = ""
    groups: dict[str, GroupSize]
    queue: str = ""
    queues: tuple[str, ...] = ()
    priority: str = ""
    priorities: tuple[str, ...] = ()
    wandb: WandbOffer = field(default_factory=WandbOffer)
    dashboard: str = ""


def parse_platform(values: dict[str, Any], *, place: str, version: str) -> Platform:
    """Return what is offered.

    Args:
        values: ``platform.json``.
        place: Where that was read, for messages.
        version: Of this echotrain: jobs are checked here by the code that runs there.

    Raises:
        LaunchError: The template is of another format or of another echotrain, or says something that makes no sense.
    """
    if values.get("format") != PLATFORM_FORMAT:
        raise LaunchError(
            f"format {values.get('format')!r} of {place}",
            f"is not the format {PLATFORM_FORMAT} that this echotrain ({version}) reads",
            f"Install echotrain {values.get('echotrain', 'of the chart')} here, or ask the operator for the chart of this version.",
        )
    if values.get("echotrain") != version:
        raise LaunchError(
            f"echotrain {values.get('echotrain')} of {place}",
            f"is not the {version} here, so that a job could be read differently there",
            f"Install echotrain {values.get('echotrain')} here, or ask the operator for a helm upgrade to {version}.",
        )
    known = {field.name for field in dataclasses.fields(Platform)}
    try:
        return TypeAdapter(Platform).validate_python({name: value for name, value in values.items() if name in known})
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise LaunchError(f"{path} in {place}", first["msg"], "Ask the operator to install the chart again.") from error
