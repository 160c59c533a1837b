"""Optimisers and learning-rate schedules; a schedule is a pure function of the position, so a checkpoint keeps none."""

import difflib
import itertools
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import nn

from echotrain.errors import ConfigError
from echotrain.tasks.progress import Progress

__all__ = ["OptimConfig", "ParameterGroup", "ScheduleConfig"]


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate moves, as a factor of ``optim.lr``.

    Attributes:
        kind: ``step`` multiplies by ``gamma`` every ``step_epochs`` (torch's StepLR); ``cosine`` falls to 0 over
            ``cosine_epochs`` and stays there; ``constant`` does neither.
        warmup_steps: Steps of linear warm-up before, and independent of, the rest.
    """

    kind: Literal["constant", "step", "cosine"] = "step"
    step_epochs: int = 40
    gamma: float = 0.1
    cosine_epochs: int = 50
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("step_epochs", "cosine_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"optim.schedule.{name}={getattr(self, name)}", "must be at least 1", "Count whole epochs.")
        if self.warmup_steps < 0:
            raise ConfigError(f"optim.schedule.warmup_steps={self.warmup_steps}", "must not be negative", "Use 0 for none.")
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"optim.schedule.gamma={self.gamma}", "must lie in (0, 1]", "Use 0.1 where in doubt.")

    def factor(self, progress: Progress) -> float:
        """Return the factor at a step of a run."""
        warmup = min(1.0, (progress.global_step + 1) / (self.warmup_steps + 1))
        if self.kind == "step":
            return warmup * self.gamma ** (progress.epoch // self.step_epochs)
        if self.kind == "cosine":
            share = (progress.epoch + progress.step / progress.steps_per_epoch) / self.cosine_epochs
            return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        return warmup


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters, by their names, that are optimised otherwise than the rest.

    Attributes:
        names: Patterns of names in the network's state, in which ``*`` stands for anything: ``[encoder.*, *.bias]``.
        lr: Factor of ``optim.lr``.
        weight_decay: Factor of ``optim.weight_decay``; 0 decays nothing.
        schedule: Of this group; None follows ``optim.schedule``.
    """

    names: tuple[str, ...] = ()
    lr: float = 1.0
    weight_decay: float = 1.0
    schedule: ScheduleConfig | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError("optim.groups.names=[]", "names no parameter", "Give patterns, say names=[*.bias].")
        if self.lr <= 0:
            raise ConfigError(f"optim.groups.lr={self.lr}", "must be positive: it is a factor of optim.lr", "Use 0.1, or leave it out.")
        if self.weight_decay < 0:
            raise ConfigError(f"optim.groups.weight_decay={self.weight_decay}", "must not be negative", "Use 0 for none.")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser; the defaults are those of fastMRI's E2E-VarNet (Adam, 3e-4, StepLR 40/0.1).

    Attributes:
        kind: ``adam`` adds ``weight_decay`` to the gradient, ``adamw`` decouples it.
        clip_norm: Largest global norm of the gradient; 0 does not clip.
        groups: Parameters that differ from the rest, each in one group at most.
    """

    kind: Literal["adam", "adamw"] = "adam"
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    groups: tuple[ParameterGroup, ...] = ()

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"optim.lr={self.lr}", "must be positive", "Use 3e-4 where in doubt.")
        if self.clip_norm < 0 or self.weight_decay < 0:
            raise ConfigError(
                f"optim.clip_norm={self.clip_norm}, optim.weight_decay={self.weight_decay}", "must not be negative", "Use 0 for none."
            )
        if self.kind == "adamw" and self.weight_decay == 0:
            warnings.warn("optim.kind=adamw with optim.weight_decay=0 is plain Adam", stacklevel=2)
        for group in self.groups:
            is_decay_of_none = self.weight_decay == 0 and group.weight_decay != 1
            if is_decay_of_none or (group.lr, group.weight_decay, group.schedule) == (1, 1, None):
                what = "optim.weight_decay=0 has no factors" if is_decay_of_none else "it is as the rest"
                warnings.warn(f"optim.groups with names={list(group.names)}: {what}", stacklevel=2)

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser over the network's parameters that require a gradient.

        Raises:
            ConfigError: A pattern of a group matches none of them, or two groups match one.
        """
        members = _members(self.groups, network)
        grouped = set(itertools.chain.from_iterable(members))
        rest = [parameter for parameter in network.parameters() if parameter.requires_grad and parameter not in grouped]
        parts: list[dict[str, Any]] = [{"params": rest}] if rest or not members else []
        for group, parameters in zip(self.groups, members, strict=True):
            parts.append({"params": parameters, "weight_decay": self.weight_decay * group.weight_decay})
        cls = torch.optim.AdamW if self.kind == "adamw" else torch.optim.Adam
        return cls(parts, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)

    def set_rates(self, optimizer: torch.optim.Optimizer, progress: Progress) -> float:
        """Give the optimiser the learning rates of a step, and return that of what is in no group."""
        own = [(group.lr, group.schedule or self.schedule) for group in self.groups]
        num_rest = len(optimizer.param_groups) - len(own)
        for part, (factor, schedule) in zip(optimizer.param_groups, [(1.0, self.schedule)] * num_rest + own, strict=True):
            part["lr"] = self.lr * factor * schedule.factor(progress)
        return self.lr * self.schedule.factor(progress)


def _members(groups: Sequence[ParameterGroup], network: nn.Module) -> list[list[nn.Parameter]]:
    """Return the trainable parameters of each group, in the network's order."""
    # A tied weight has several names, and may be named by any.
    named = [(name, parameter) for name, parameter in network.named_parameters(remove_duplicate=False) if parameter.requires_grad]
    matched = [{parameter for pattern in group.names for parameter in _matching(pattern, named)} for group in groups]
    times = Counter(itertools.chain.from_iterable(matched))
    twice = [name for name, parameter in named if times[parameter] > 1]
    if twice:
        listed = ", ".join(twice[:5]) + (f" and {len(twice) - 5} more" if len(twice) > 5 else "")
        raise ConfigError(f"optim.groups: {listed}", "is matched by more than one group", "Name each parameter in one group at most.")
    return [[parameter for parameter in network.parameters() if parameter in members] for members in matched]


def _matching(pattern: str, named: Sequence[tuple[str, nn.Parameter]]) -> list[nn.Parameter]:
    found = [parameter for name, parameter in named if fnmatchcase(name, pattern)]
    if not found:
        near = difflib.get_close_matches(pattern, [name for name, _ in named], n=1, cutoff=0.0)
        remedy = f"Did you mean {near[0]}?" if near else "Nothing is trained."
        raise ConfigError(f"optim.groups: the pattern {pattern!r}", "matches no parameter that is trained", remedy)
    return found
