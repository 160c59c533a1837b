"""Samples as loops outside of echotrain know them: of k-space lines, the fields of fastMRI's ``VarNetSample``.

Each comes out of a batch of one sample, and keeps its memory: nothing is overwritten as long as a tensor of it is held.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from echotrain.data.catalog.columns import codes_of, taken
from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.image import ImageBatch
from echotrain.data.samples.kspace_kt import KtBatch
from echotrain.data.samples.kspace_lines import LinesBatch
from echotrain.errors import ConfigError

__all__ = ["ImageSample", "KspaceSample", "Names", "WindowSample", "collate", "sample_of"]


class KspaceSample(NamedTuple):
    """A slice of line-masked k-space; to the byte as fastMRI's ``VarNetDataTransform`` gives it, but for three fields.

    Besides ``weight``, which it has not, ``max_value`` and ``crop_size`` are of the targets that the catalog has, where the public code
    takes over what the file says: a file may state another image size than its target's, and the maximum of a volume of which slices were
    left out.

    Attributes:
        masked_kspace: (coil, y, x, 2), zero where the mask is.
        mask: (1, 1, x, 1).
        num_low_frequencies: Fully sampled centre lines.
        target: RSS image of the full k-space, (y, x).
        fname: ``<volume>.h5``.
        slice_num: Of the volume; a frame of a slice that was measured at several times counts as a slice of its own.
        max_value: Maximum of the target volume, of the slices that were kept; a Python float.
        crop_size: Size of the target.
        weight: 1, and 0 for a filler: a copy that keeps ranks in step where samples do not suffice for all.
    """

    masked_kspace: Tensor
    mask: Tensor
    num_low_frequencies: int
    target: Tensor
    fname: str
    slice_num: int
    max_value: float
    crop_size: tuple[int, int]
    weight: float


class WindowSample(NamedTuple):
    """A frame with its neighbours in time; fields that ``KspaceSample`` has mean the same.

    Attributes:
        masked_kspace: (frame, coil, y, x, 2), without the first axis where a window is one frame, as in all that follow.
        mask: (frame, 1, y or 1, x).
        calibration: Fully sampled centre: lines (frame,), or rows and columns (frame, 2).
    """

    masked_kspace: Tensor
    mask: Tensor
    calibration: Tensor
    target: Tensor
    fname: str
    slice_num: int
    max_value: float
    crop_size: tuple[int, int]
    weight: float


class ImageSample(NamedTuple):
    """An image; fields that ``KspaceSample`` has mean the same.

    Attributes:
        image: (y, x), within [0, 1].
        low, high: What 0 and 1 stand for in the catalog's own units.
    """

    image: Tensor
    low: float
    high: float
    fname: str
    slice_num: int
    weight: float


class Names:
    """What samples are called outside, and what their batches say only in single precision.

    Args:
        table: Catalog rows.
        positions: Those that samples are made of. Volumes of two data sets that are called alike have the data set in their names, or
            whoever scores by ``fname`` would take them for one.
    """

    def __init__(self, table: pa.Table, positions: NDArray[np.int64]) -> None:
        _, firsts = codes_of(taken(table, positions, ["dataset", "volume"]), ["dataset", "volume"])
        columns = ["dataset", "volume", "max_value", "num_frames"]
        volumes = taken(table, positions[firsts], columns).to_pylist()
        called: dict[str, int] = {}
        for volume in volumes:
            called[volume["volume"]] = called.get(volume["volume"], 0) + 1
        self._files = {(v["dataset"], v["volume"]): _file_name(v, is_alone=called[v["volume"]] == 1) for v in volumes}
        self._maxima = {(v["dataset"], v["volume"]): float(v["max_value"] or 0) for v in volumes}
        self._num_frames = {(v["dataset"], v["volume"]): v["num_frames"] or 1 for v in volumes}

    def file(self, sample: SampleId) -> str:
        """Return the name of the volume's file."""
        return self._files[sample[:2]]

    def number(self, sample: SampleId) -> int:
        """Return which image of its volume a sample is."""
        return sample.slice * self._num_frames[sample[:2]] + (sample.frame or 0)

    def max_value(self, sample: SampleId) -> float:
        """Return the maximum of the target volume."""
        return self._maxima[sample[:2]]


def sample_of(batch: Batch, names: Names) -> KspaceSample | WindowSample | ImageSample:
    """Return the one sample of a batch, in the batch's memory, which is not to be used otherwise.

    Raises:
        ConfigError: Nobody has said what such samples are to look like.
    """
    (sample,) = batch.ids
    called: dict[str, Any] = {"fname": names.file(sample), "slice_num": names.number(sample), "weight": float(batch.weight)}
    if isinstance(batch, ImageBatch):
        return ImageSample(image=batch.image[0], low=float(batch.low), high=float(batch.high), **called)
    if isinstance(batch, LinesBatch | KtBatch):
        target = batch.target[0]
        called |= {"target": target, "max_value": names.max_value(sample), "crop_size": tuple(target.shape)}
        return _of_lines(batch, called) if isinstance(batch, LinesBatch) else _of_window(batch, called)
    raise ConfigError(type(batch).__name__, "has no form outside of echotrain", "Use kspace_lines, kspace_kt or image.")


def collate(samples: list[Any]) -> Any:
    """Return samples as a batch, as ``torch.utils.data.default_collate`` does; one alone keeps its memory, which spares a copy."""
    collated: Any = torch.utils.data.default_collate
    if len(samples) > 1:
        return collated(samples)
    (sample,) = samples
    return type(sample)(*(value[None] if isinstance(value, Tensor) else collated((value,)) for value in sample))


def _of_lines(batch: LinesBatch, called: Mapping[str, Any]) -> KspaceSample:
    kspace, mask = batch.kspace.numpy()[0], batch.mask.numpy()[0]
    # In place, as real numbers: under half of what a masked copy takes. Adding 0 takes the sign off zeros, as the public code does.
    real = kspace.view(np.float32)
    np.multiply(real, np.repeat(mask, 2, axis=-1).astype(np.float32), out=real)
    np.add(real, np.float32(0), out=real)
    return KspaceSample(
        masked_kspace=torch.view_as_real(batch.kspace[0]),
        mask=batch.mask[0, ..., None],
        num_low_frequencies=int(batch.num_low_frequencies),
        **called,
    )


def _of_window(batch: KtBatch, called: Mapping[str, Any]) -> WindowSample:
    shown = batch.network_input()
    return WindowSample(masked_kspace=torch.view_as_real(shown.kspace[0]), mask=shown.mask[0], calibration=shown.calibration[0], **called)


def _file_name(volume: Mapping[str, str], *, is_alone: bool) -> str:
    name = volume["volume"] if is_alone else f"{volume['dataset']}-{volume['volume']}"
    return name if name.endswith(".h5") else f"{name}.h5"
