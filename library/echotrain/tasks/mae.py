"""Pre-training by masked autoencoding: predict the patches of an image that the network did not see.

Source: He et al., arXiv:2111.06377. What is hidden, and how an image is cropped, is drawn from the sample's own streams.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from echotrain.augmentation.crops import CropConfig, random_crops
from echotrain.augmentation.fit import Fit, fit_square
from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.image import ImageBatch
from echotrain.models.mae.network import MaeNetwork, Masked, patchify, unpatchify
from echotrain.shapes import Channels, PerSample
from echotrain.tasks.task import Panel, ScoreTable, StepLoss, Task, bare

__all__ = ["MaeConfig", "MaeTask", "MaeValidation", "masked_loss"]

# Of the normalised patches of the paper.
_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class MaeConfig:
    """The masked-autoencoding task; crops and flips are the paper's.

    Attributes:
        kind: Tells this task's settings from another's.
        models, data: Kinds of model that it trains, and what samples must come as.
        norm_pix_loss: Compare with each patch after its own mean and standard deviation are taken out, not with its values.
        crop_scale: Smallest and largest share of an image's area that a training crop has.
        flip: Probability of a left-right flip in training.
        fit: How whole images are brought to the network's size in validation, see ``augmentation.fit``.
    """

    kind: Literal["mae"] = "mae"
    models: ClassVar[tuple[str, ...]] = ("mae",)
    data: ClassVar[type[Batch]] = ImageBatch
    norm_pix_loss: bool = False
    crop_scale: tuple[float, float] = (0.2, 1.0)
    flip: float = 0.5
    fit: Fit = "pad"

    def __post_init__(self) -> None:
        CropConfig(scale=self.crop_scale, flip=self.flip)

    def describe(self) -> str:
        """Return what a table says of it."""
        return "normalised patches" if self.norm_pix_loss else ""

    def build(self) -> "MaeTask":
        """Make the task."""
        return MaeTask(self)


class MaeTask(Task[ImageBatch]):
    """The mean squared error over the patches that were hidden, of one random crop of each image."""

    metrics = ("masked_loss",)
    score = "masked_loss"

    def __init__(self, config: MaeConfig) -> None:
        self.config = config

    def loss(self, network: nn.Module, batch: ImageBatch) -> StepLoss:
        """Return each sample's loss over its hidden patches."""
        config = CropConfig(side=_network(network).config.side, scale=self.config.crop_scale, flip=self.config.flip)
        images = random_crops(batch.image[:, None], batch.generators("mae crop"), config)
        per_sample = self._loss(images, self._run(network, images, batch), _network(network).config.patch)
        return StepLoss(per_sample=per_sample, logs={})

    def whole_loss(self, network: nn.Module, batch: ImageBatch) -> PerSample:
        """Return each sample's loss of the whole image; in validation, what is hidden depends on the sample alone."""
        images = self._whole(network, batch)
        return self._loss(images, self._run(network, images, batch), _network(network).config.patch)

    def validation(self) -> "MaeValidation":
        """Begin a pass over the validation split."""
        return MaeValidation(self)

    def panels(self, network: nn.Module, batch: ImageBatch) -> list[Panel]:
        """Return each whole image, what the network sees of it, its reconstruction and the error (five times).

        With ``norm_pix_loss`` the prediction of a patch is shown with that patch's own mean and standard deviation, as the paper does.
        """
        images, patch = self._whole(network, batch), _network(network).config.patch
        result = self._run(network, images, batch)
        truth, hidden = patchify(images, patch), result.mask[..., None]
        predicted = _denormalised(result.predicted, truth) if self.config.norm_pix_loss else result.predicted
        rebuilt = unpatchify(truth * (1 - hidden) + predicted * hidden, patch)
        rows = {
            "image": images,
            "seen": unpatchify(truth * (1 - hidden), patch),
            "reconstruction": rebuilt,
            "error x5": 5 * (rebuilt - images).abs(),
        }
        pictures = {name: row[:, 0].detach().float().cpu().numpy() for name, row in rows.items()}
        return [
            Panel(
                sample=sample,
                caption=f"{sample.dataset}/{sample.volume} slice {sample.slice}",
                images={name: stack[index] for name, stack in pictures.items()},
                scale=1.0,
            )
            for index, sample in enumerate(batch.ids)
        ]

    def _run(self, network: nn.Module, images: Channels, batch: ImageBatch) -> Masked:
        count = _network(network).config.num_patches
        noise = torch.stack([torch.rand(count, generator=generator) for generator in batch.generators("mae mask")])
        result: Masked = network(images, noise.to(images.device, non_blocking=True))
        return result

    def _loss(self, images: Channels, result: Masked, patch: int) -> PerSample:
        return masked_loss(patchify(images, patch), result, norm_pix=self.config.norm_pix_loss)

    def _whole(self, network: nn.Module, batch: ImageBatch) -> Channels:
        return fit_square(batch.image[:, None], _network(network).config.side, self.config.fit)


def masked_loss(truth: Float[Tensor, "batch patch value"], result: Masked, *, norm_pix: bool) -> PerSample:
    """Return the mean squared error over hidden patches alone, one per sample.

    Args:
        truth: The image's patches.
        result: What was predicted, and what was hidden.
        norm_pix: Take each patch's own mean and standard deviation out of the truth first; a blank patch stays zero.
    """
    if norm_pix:
        mean, deviation = _moments(truth)
        truth = (truth - mean) / deviation
    per_patch = (result.predicted - truth).square().mean(dim=-1)
    return (per_patch * result.mask).sum(dim=1) / result.mask.sum(dim=1)


class MaeValidation:
    """The loss over the hidden patches of whole validation images, averaged over slices; it needs no target but the image."""

    def __init__(self, task: MaeTask) -> None:
        self._task = task
        self._losses: dict[SampleId, float] = {}
        self._anatomies: dict[SampleId, str] = {}

    def add(self, network: nn.Module, batch: ImageBatch) -> None:
        """Score a batch's images."""
        losses = self._task.whole_loss(network, batch).float().tolist()
        self._losses.update(zip(batch.ids, losses, strict=True))
        self._anatomies.update(zip(batch.ids, batch.anatomies, strict=False))

    def state(self) -> tuple[dict[SampleId, float], dict[SampleId, str]]:
        """Return a number per slice, and what it shows."""
        return self._losses, self._anatomies

    def merge(self, state: tuple[dict[SampleId, float], dict[SampleId, str]]) -> None:
        """Take in another rank's slices."""
        losses, anatomies = state
        self._losses.update(losses)
        self._anatomies.update(anatomies)

    def scores(self) -> dict[str, float]:
        """Return ``masked_loss``, the lower the better."""
        return {"masked_loss": _mean(self._losses, list(self._losses))} if self._losses else {}

    def table(self) -> ScoreTable:
        """Return the loss by anatomy."""
        groups: dict[str, list[SampleId]] = {}
        for sample in self._losses:
            groups.setdefault(self._anatomies.get(sample, ""), []).append(sample)
        rows = tuple((name or "unknown", len(members), _mean(self._losses, members)) for name, members in sorted(groups.items()))
        return ScoreTable(title="anatomy", columns=("anatomy", "slices", "masked_loss"), rows=rows)


def _mean(losses: dict[SampleId, float], samples: list[SampleId]) -> float:
    """Return the mean, summed in an order that does not depend on ranks."""
    return sum(sorted(losses[sample] for sample in samples)) / len(samples)


def _moments(patches: Float[Tensor, "batch patch value"]) -> tuple[Tensor, Tensor]:
    return patches.mean(dim=-1, keepdim=True), (patches.var(dim=-1, keepdim=True) + _EPSILON).sqrt()


def _denormalised(predicted: Float[Tensor, "batch patch value"], truth: Float[Tensor, "batch patch value"]) -> Tensor:
    mean, deviation = _moments(truth)
    return predicted * deviation + mean


def _network(network: nn.Module) -> MaeNetwork:
    found = bare(network)
    assert isinstance(found, MaeNetwork)
    return found
