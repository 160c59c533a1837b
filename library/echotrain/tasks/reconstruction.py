"""Reconstruction: undersampled multi-coil k-space to a magnitude image, trained on SSIM."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from echotrain.data.samples.batch import Batch
from echotrain.data.samples.measured import MeasuredBatch
from echotrain.errors import ConfigError
from echotrain.losses.ssim import SSIMLoss
from echotrain.physics.coils import rss
from echotrain.physics.crop import center_crop_to_smallest
from echotrain.physics.fft import ifft2c
from echotrain.shapes import Magnitude
from echotrain.tasks.task import Panel, ReconstructingTask, StepLoss, Validation

__all__ = ["ReconstructionConfig", "ReconstructionTask", "compare", "masked_kspace", "zero_filled"]


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """The reconstruction task.

    Attributes:
        kind: Tells this task's settings from another's.
        models, data: Kinds of model that it trains, and what samples must come as.
        ssim_window: Side of SSIM's uniform window, pixels.
    """

    kind: Literal["reconstruction"] = "reconstruction"
    models: ClassVar[tuple[str, ...]] = ("varnet",)
    data: ClassVar[type[Batch]] = MeasuredBatch
    ssim_window: int = 7

    def __post_init__(self) -> None:
        if self.ssim_window < 3 or self.ssim_window % 2 == 0:
            raise ConfigError(f"task.ssim_window={self.ssim_window}", "must be odd and at least 3", "Use 7, as fastMRI does.")

    def describe(self) -> str:
        """Return what a table says of it: the network's name says it all."""
        return ""

    def build(self) -> "ReconstructionTask":
        """Make the task."""
        return ReconstructionTask(self)


class ReconstructionTask(ReconstructingTask[MeasuredBatch]):
    """``1 - SSIM`` between the network's RSS image and the target, with the target volume's maximum as data range.

    As in fastMRI's ``varnet_module.py``, both are cropped to the smaller of the two first.
    """

    metrics = ("nmse", "psnr", "ssim")
    score = "ssim"

    def __init__(self, config: ReconstructionConfig) -> None:
        self._ssim = SSIMLoss(config.ssim_window)

    def loss(self, network: nn.Module, batch: MeasuredBatch) -> StepLoss:
        """Return each sample's ``1 - SSIM``."""
        output, target = center_crop_to_smallest(_run(network, batch), batch.target)
        return StepLoss(per_sample=self._ssim(output, target, batch.max_value), logs={})

    def reconstruct(self, network: nn.Module, batch: MeasuredBatch) -> Magnitude:
        """Return the network's images, cropped to the target's matrix."""
        output, _ = center_crop_to_smallest(_run(network, batch), batch.target)
        return output.float()

    def validation(self) -> Validation[MeasuredBatch]:
        """Begin a pass over the validation split."""
        # Its metrics import SciPy's statistics, which takes as long as PyTorch; no process waits for that before its first step.
        from echotrain.tasks.volume_validation import VolumeValidation

        return VolumeValidation(self.reconstruct)

    def panels(self, network: nn.Module, batch: MeasuredBatch) -> list[Panel]:
        """Return zero-filled, reconstruction, target and error (five times) of each sample."""
        return compare(self.reconstruct(network, batch), batch)


def compare(images: Magnitude, batch: MeasuredBatch) -> list[Panel]:
    """Return pictures of each sample: zero-filled, the given image, the target and the error (five times)."""
    output, target = center_crop_to_smallest(images, batch.target)
    baseline, _ = center_crop_to_smallest(zero_filled(batch), target)
    rows = {"zero-filled": baseline, "reconstruction": output, "target": target, "error x5": 5 * (output - target).abs()}
    pictures = {name: row.detach().float().cpu().numpy() for name, row in rows.items()}
    return [
        Panel(
            sample=sample,
            caption=f"{sample.dataset}/{sample.volume} slice {sample.slice}" + ("" if sample.frame is None else f" frame {sample.frame}"),
            images={name: stack[index] for name, stack in pictures.items()},
            scale=float(batch.max_value[index]),
        )
        for index, sample in enumerate(batch.ids)
    ]


def zero_filled(batch: MeasuredBatch) -> Magnitude:
    """Return the RSS images of what was acquired, cropped to the target's matrix: the baseline without a network."""
    output, _ = center_crop_to_smallest(rss(ifft2c(batch.acquired())), batch.target)
    return output


def masked_kspace(batch: MeasuredBatch) -> Magnitude:
    """Return the root sum of squares over coils of the k-space that was acquired, on the full matrix; exactly zero elsewhere.

    Beside a reconstruction it shows what that had to be made of. All coils count, so that none has to be chosen.
    """
    return rss(batch.acquired())


def _run(network: nn.Module, batch: MeasuredBatch) -> Magnitude:
    """Return the network's RSS images on the full matrix."""
    output: Magnitude = network(*batch.network_input())
    return output
