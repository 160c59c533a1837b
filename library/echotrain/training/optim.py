"""Optimisers and learning-rate schedules; a schedule is a pure function of the position, so a checkpoint keeps none."""

import math
import warnings
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from echotrain.errors import ConfigError
from echotrain.tasks.progress import Progress

__all__ = ["OptimConfig", "ScheduleConfig"]


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
class OptimConfig:
    """The optimiser; the defaults are those of fastMRI's E2E-VarNet (Adam, 3e-4, StepLR 40/0.1).

    Attributes:
        kind: ``adam`` adds ``weight_decay`` to the gradient, ``adamw`` decouples it.
        clip_norm: Largest global norm of the gradient; 0 does not clip.
    """

    kind: Literal["adam", "adamw"] = "adam"
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"optim.lr={self.lr}", "must be positive", "Use 3e-4 where in doubt.")
        if self.clip_norm < 0 or self.weight_decay < 0:
            raise ConfigError(
                f"optim.clip_norm={self.clip_norm}, optim.weight_decay={self.weight_decay}", "must not be negative", "Use 0 for none."
            )
        if self.kind == "adamw" and self.weight_decay == 0:
            warnings.warn("optim.kind=adamw with optim.weight_decay=0 is plain Adam", stacklevel=2)

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser over the network's parameters that require a gradient."""
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        cls = torch.optim.AdamW if self.kind == "adamw" else torch.optim.Adam
        return cls(trainable, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)

    def set_rates(self, optimizer: torch.optim.Optimizer, progress: Progress) -> float:
        """Give the optimiser the learning rate of a step, and return it."""
        lr = self.lr * self.schedule.factor(progress)
        for group in optimizer.param_groups:
            group["lr"] = lr
        return lr
