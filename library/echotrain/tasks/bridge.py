"""Latent bridge matching: from the zero-filled image to the target along a bridge, learnt as its direction.

Chadebec et al., arXiv:2503.07535, as MosaicMRI (arXiv:2604.11762, A.2) applies it: the source is the zero-filled image, the target the RSS
image of the full k-space. Nothing holds the result to what was measured.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from echotrain.data.samples.batch import Batch
from echotrain.data.samples.measured import MeasuredBatch
from echotrain.errors import ConfigError
from echotrain.losses.ssim import SSIMLoss
from echotrain.models.bridge.network import BridgeNetwork
from echotrain.models.bridge.space import Space
from echotrain.physics.crop import center_crop_to_smallest
from echotrain.shapes import Channels, Magnitude, PerSample
from echotrain.tasks.reconstruction import compare, zero_filled
from echotrain.tasks.task import Panel, ReconstructingTask, StepLoss, Validation, bare

__all__ = ["BridgeConfig", "BridgeTask", "bridge_point", "sample_bridge", "target_estimate"]


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """The bridge task; noise, times and their probabilities are by default those of the public surface-normals configuration.

    Attributes:
        kind: Tells this task's settings from another's.
        models, data: Kinds of model that it trains, and what samples must come as.
        noise: ``sigma`` of the bridge, in units of its space.
        times: Where on the bridge the network learns, in (0, 1]; at 1 is the source. One is drawn per sample.
        probabilities: Of the times; () draws each equally often.
        sampling_steps: Of a reconstruction. With 1, 2 or 4 all of them begin at times that the default ones train; with 3 they do not.
        ssim_weight: Of ``1 - SSIM`` between the target and the image that the direction points to. Deviation: the paper adds
            LPIPS there, whose weights and torchvision are not needed here; 0 leaves it out, and nothing is decoded in training.
        ssim_window: Side of SSIM's uniform window, pixels.
    """

    kind: Literal["bridge"] = "bridge"
    models: ClassVar[tuple[str, ...]] = ("bridge",)
    data: ClassVar[type[Batch]] = MeasuredBatch
    noise: float = 0.005
    times: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    probabilities: tuple[float, ...] = ()
    sampling_steps: int = 1
    ssim_weight: float = 0.0
    ssim_window: int = 7

    def __post_init__(self) -> None:
        if not self.times or min(self.times) <= 0 or max(self.times) > 1:
            raise ConfigError(f"task.times={list(self.times)}", "must lie in (0, 1]", "Use [0.25, 0.5, 0.75, 1.0].")
        if self.probabilities and (
            len(self.probabilities) != len(self.times) or min(self.probabilities) < 0 or abs(sum(self.probabilities) - 1) > 1e-6
        ):
            raise ConfigError(
                f"task.probabilities={list(self.probabilities)}", "must be one per time and sum to 1", "Leave them out for equal ones."
            )
        if self.noise < 0 or self.ssim_weight < 0:
            raise ConfigError(f"task.noise={self.noise}, task.ssim_weight={self.ssim_weight}", "must not be negative", "Use 0 for none.")
        if self.sampling_steps < 1:
            raise ConfigError(f"task.sampling_steps={self.sampling_steps}", "must be at least 1", "Use 1 to 4.")
        if self.ssim_window < 3 or self.ssim_window % 2 == 0:
            raise ConfigError(f"task.ssim_window={self.ssim_window}", "must be odd and at least 3", "Use 7, as fastMRI does.")

    def describe(self) -> str:
        """Return what a table says of it."""
        return f"LBM, {self.sampling_steps} step{'s' if self.sampling_steps > 1 else ''}"

    def build(self) -> "BridgeTask":
        """Make the task."""
        return BridgeTask(self)


class BridgeTask(ReconstructingTask[MeasuredBatch]):
    """``mean((v(x_s, s) - (z_source - z_target))^2)`` at one drawn point ``x_s`` of each sample's bridge.

    Each slice is divided by the maximum of its zero-filled image, which is known where there is no target too, and its source mapped to
    [-1, 1]. All that is drawn in training is a function of the run's seed, the epoch and the slice; in reconstruction, of the slice alone.
    """

    metrics = ("nmse", "psnr", "ssim")
    score = "ssim"

    def __init__(self, config: BridgeConfig) -> None:
        self.config = config
        self._ssim = SSIMLoss(config.ssim_window)

    def loss(self, network: nn.Module, batch: MeasuredBatch) -> StepLoss:
        """Return each sample's squared error of the direction, and with ``ssim_weight`` the loss of the image that it points to."""
        image = zero_filled(batch)
        _, target_image = center_crop_to_smallest(image, batch.target)
        scale, space = image_scale(image), _space(network, image)
        source = space.encode(normalise(image, scale))
        target = space.encode(normalise(target_image, scale))
        s = self._draw_times(batch).to(source.device, non_blocking=True)
        x = bridge_point(source, target, s, self.config.noise * _noise(batch, "bridge", source)())
        direction: Channels = network(x, s)
        matching = (direction - (source - target)).square().mean(dim=(1, 2, 3))
        if not self.config.ssim_weight:
            return StepLoss(per_sample=matching, logs={})
        estimate = space.decode(target_estimate(x, s, direction), (image.shape[-2], image.shape[-1]))
        likeness = self._ssim(restore(estimate, scale), target_image, batch.max_value)
        return StepLoss(per_sample=matching + self.config.ssim_weight * likeness, logs={"matching": matching, "ssim_loss": likeness})

    def reconstruct(self, network: nn.Module, batch: MeasuredBatch) -> Magnitude:
        """Return the images at the bridge's other end, on the target's matrix."""
        image = zero_filled(batch)
        scale, space = image_scale(image), _space(network, image)
        source = space.encode(normalise(image, scale))
        noise = _noise(batch, "bridge sampling", source)
        target = sample_bridge(network, source, self.config.sampling_steps, lambda: self.config.noise * noise())
        return restore(space.decode(target, (image.shape[-2], image.shape[-1])), scale).clamp_min(0)

    def validation(self) -> Validation[MeasuredBatch]:
        """Begin a pass over the validation split."""
        # Imported late for the reason given in ReconstructionTask.
        from echotrain.tasks.volume_validation import VolumeValidation

        return VolumeValidation(self.reconstruct)

    def panels(self, network: nn.Module, batch: MeasuredBatch) -> list[Panel]:
        """Return zero-filled, reconstruction, target and error (five times) of each sample."""
        return compare(self.reconstruct(network, batch), batch)

    def _draw_times(self, batch: MeasuredBatch) -> PerSample:
        times = torch.tensor(self.config.times)
        weights = torch.tensor(self.config.probabilities or (1.0,) * len(times))
        return torch.cat([times[torch.multinomial(weights, 1, generator=generator)] for generator in batch.generators("bridge time")])


def bridge_point(source: Channels, target: Channels, s: PerSample, noise: Channels) -> Channels:
    """Return ``x_s = s z_source + (1 - s) z_target + sqrt(s (1 - s)) noise``; at ``s = 1`` that is the source itself, bit for bit."""
    s = s[:, None, None, None]
    return s * source + (1 - s) * target + (s * (1 - s)).sqrt() * noise


def target_estimate(x: Channels, s: PerSample, direction: Channels) -> Channels:
    """Return ``x_s - s v``: where the bridge ends by the direction at one point of it."""
    return x - s[:, None, None, None] * direction


def sample_bridge(
    direction: Callable[[Channels, PerSample], Channels], source: Channels, num_steps: int, noise: Callable[[], Channels]
) -> Channels:
    """Go along the bridge from ``s = 1`` to 0 in equal Euler steps, adding ``sqrt(s (1 - s)) noise`` after each but the last.

    Args:
        direction: ``v(x, s)``.
        source: Where the bridge begins.
        num_steps: How many steps.
        noise: Gives the noise of the next step.
    """
    x = source
    times = [1 - step / num_steps for step in range(num_steps + 1)]
    for s, upcoming in itertools.pairwise(times):
        x = x - (s - upcoming) * direction(x, x.new_full((len(x),), s))
        if upcoming > 0:
            x = x + (upcoming * (1 - upcoming)) ** 0.5 * noise()
    return x


def image_scale(image: Magnitude) -> PerSample:
    """Return the maximum of each image; of one that is all zeros, the smallest number that it can be divided by."""
    return image.amax(dim=(1, 2)).clamp_min(torch.finfo(image.dtype).tiny)


def normalise(image: Magnitude, scale: PerSample) -> Channels:
    """Map [0, scale] to [-1, 1], which published autoencoders expect, and give it a channel."""
    return 2 * (image / scale[:, None, None])[:, None] - 1


def restore(channels: Channels, scale: PerSample) -> Magnitude:
    """Undo ``normalise``."""
    return (channels[:, 0] + 1) / 2 * scale[:, None, None]


def _space(network: nn.Module, image: Magnitude) -> Space:
    own = bare(network)
    assert isinstance(own, BridgeNetwork)
    return own.space(image.device)


def _noise(batch: MeasuredBatch, purpose: str, like: Channels) -> Callable[[], Channels]:
    """Return what gives unit noise of the codes' shape, anew at each call, from a stream per sample."""
    generators = batch.generators(purpose)

    def draw() -> Channels:
        noise = torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in generators])
        return noise.to(like.device, non_blocking=True)

    return draw
