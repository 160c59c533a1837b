"""From what a command line asks, and what an operator offers, to what is ordered: every contradiction is found here."""

import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from echotrain.data.formats.deidentify import SALT_VARIABLE
from echotrain.errors import LaunchError
from echotrain.launching.choices import choose_priority, choose_queue
from echotrain.launching.client import KubeClient
from echotrain.launching.links import dashboard_link, wandb_link
from echotrain.launching.naming import check_name, job_name
from echotrain.launching.objects import COMMAND, DASHBOARD, LAUNCH, USER, VERB_LABEL, VERSION, WANDB
from echotrain.launching.places import check_places, shared_mounts
from echotrain.launching.platform import Platform
from echotrain.launching.sizing import Need, choose_group, num_pods
from echotrain.launching.template import JobOrder, Template, has_variable
from echotrain.training.experiment import WandbConfig

__all__ = ["Asked", "Choices", "make_order", "storage_of"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a verb's command line asks of a cluster.

    Attributes:
        words: What the job is named after.
        arguments: Of the verb, as its pods get them.
        need: What it computes with.
        places: URIs that pods must reach, by what stands before them on the command line.
        lacks_storage: Whether it takes ``storage=`` and got none.
        wandb: Settings of the runs' W&B; None for a verb that logs nothing there.
        notes: What the user should know.
        needs_salt: Whether it makes pseudonyms, for which its pods need a secret key.
    """

    words: str
    arguments: Sequence[str]
    need: Need
    places: Mapping[str, str]
    lacks_storage: bool = False
    wandb: WandbConfig | None = None
    notes: tuple[str, ...] = ()
    needs_salt: bool = False


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user may say about a job; "" and None leave it to the template and to the job's needs."""

    group: str = ""
    nodes: int | None = None
    queue: str = ""
    priority: str = ""
    job_name: str = ""
    retries: int | None = None
    time_limit: int | None = None

    def __post_init__(self) -> None:
        if self.retries is not None and self.retries < 0:
            raise LaunchError(f"--retries {self.retries}", "must be at least 0", "Leave it out for the operator's.")


def make_order(verb: str, asked: Asked, template: Template, choices: Choices, client: KubeClient) -> JobOrder:
    """Return what is ordered of the template.

    Raises:
        LaunchError: Something is not offered, does not fit, or is not where the pods are.
    """
    platform = template.platform
    group = choose_group(platform.groups, asked.need, choices.group)
    if not group and choices.nodes is not None:
        raise LaunchError(f"--nodes {choices.nodes}", f"has no effect: the head does all of {verb}", "Leave it out, or add --group.")
    if asked.needs_salt and not has_variable(template, SALT_VARIABLE):
        raise LaunchError(
            f"{template.place}: no {SALT_VARIABLE}",
            f"{verb} makes the patients' pseudonyms with it, so that the job would fail",
            "Ask the operator to make a Secret with it, and to set deidentification.existingSecret of the chart to its name.",
        )
    check_places(asked.places, shared_mounts(template.manifest, group))
    name = check_name(choices.job_name) if choices.job_name else job_name(asked.words, secrets.token_hex(3))
    command = ["python", "-m", f"ray_jobs.{verb}", *asked.arguments]
    notes = {
        COMMAND: shlex.join(command),
        USER: client.user,
        VERSION: platform.echotrain,
        LAUNCH: secrets.token_hex(8),
        DASHBOARD: dashboard_link(platform, namespace=client.namespace, name=name),
        WANDB: _wandb_link(platform, asked.wandb),
    }
    return JobOrder(
        name=name,
        command=command,
        group=group,
        pods=num_pods(group, platform.groups[group], asked.need, choices.nodes) if group else 0,
        queue=choose_queue(platform, choices.queue),
        priority=choose_priority(platform, choices.priority),
        retries=choices.retries,
        time_limit_s=choices.time_limit,
        labels={VERB_LABEL: verb},
        annotations={key: value for key, value in notes.items() if value},
    )


def storage_of(template: Template) -> str:
    """Return where runs are kept that name no ``storage=``; raises ``LaunchError`` where the template names none either."""
    if not template.platform.storage:
        raise LaunchError("no storage=", f"and none in {template.place}", "Give storage=s3://bucket/prefix.")
    return f"{template.platform.storage.rstrip('/')}/runs"


def _wandb_link(platform: Platform, wandb: WandbConfig | None) -> str:
    if wandb is None or not wandb.enabled:
        return ""
    return wandb_link(platform, entity=wandb.entity, project=wandb.project)
