"""What an evaluation is: methods by name, on the same volumes, by the same metrics."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import CatalogError, ConfigError
from echotrain.metrics.collector import VolumeKey, VolumeScore
from echotrain.metrics.table import Quality, in_order

__all__ = [
    "FORMAT",
    "FRAMES",
    "MASKED_KSPACE",
    "MODEL",
    "TARGET",
    "ZERO_FILLED",
    "Evaluation",
    "EvaluationInfo",
    "Example",
    "MethodInfo",
    "VolumeAttributes",
    "VolumeResult",
    "column_name",
    "join_scores",
    "method_title",
    "shared_metrics",
]

FORMAT = 2
# What a trained model and what was acquired alone are called among the methods of an evaluation.
MODEL, ZERO_FILLED = "model", "zero_filled"
# What the pictures beside those of the methods are called.
TARGET, MASKED_KSPACE = "target", "masked_kspace"
# What follows the name of a picture where all frames are meant.
FRAMES = "_frames"
_NAME = re.compile("[a-z][a-z0-9_]*")
_RESERVED = (TARGET, MASKED_KSPACE, "labels")


class VolumeAttributes(NamedTuple):
    """By what the volumes of an evaluation are grouped."""

    anatomy: str
    contrast: str
    acceleration: float


@dataclass(frozen=True, kw_only=True)
class VolumeResult:
    """One volume: what it shows, and how good each method is on it.

    Attributes:
        dataset, volume: Its identity.
        attributes: What it shows.
        num_slices: How many slices were scored.
        scores: Method to metrics.
    """

    dataset: str
    volume: str
    attributes: VolumeAttributes
    num_slices: int
    scores: Mapping[str, Quality]


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One slice to look at.

    Attributes:
        dataset, volume, slice: Its identity.
        attributes: What it shows.
        max_value: Maximum of the target volume, the data range of its metrics.
        target: Magnitude image (y, x).
        images: Method to magnitude image, of the target's shape.
        masked_kspace: Root sum of squares over coils of the acquired k-space, (ky, kx), zero where nothing was acquired; None where it was
            not kept.
        frames: Of a slice that was measured at several times, its images (frame, y, x) by every method and of the target, by these names;
            empty otherwise. The images above are of one of the frames.
    """

    dataset: str
    volume: str
    slice: int
    attributes: VolumeAttributes
    max_value: float
    target: NDArray[np.float32]
    images: Mapping[str, NDArray[np.float32]]
    masked_kspace: NDArray[np.float32] | None = None
    frames: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def arrays(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield all that it shows by the names of ``examples.npz``."""
        yield from self.images.items()
        yield TARGET, self.target
        if self.masked_kspace is not None:
            yield MASKED_KSPACE, self.masked_kspace
        for name, images in self.frames.items():
            yield f"{name}{FRAMES}", images


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """What made a method's images.

    Attributes:
        model: In a line (recipe, size); "" where the method's name says it all.
        checkpoint: URI of its weights; "" for one that was not trained.
        weights_sha256: Of the file of these weights; "" where there are none, and in evaluations that were made before it was kept.
    """

    model: str = ""
    checkpoint: str = ""
    weights_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluationInfo:
    """On what methods were evaluated.

    Attributes:
        name: Title of the evaluation.
        catalog: URI of the data, with its version.
        split: Which part of it.
        data: What was chosen of that part, and how samples were made of it, as JSON; "" in evaluations that were made before it was kept.
        note: Whatever a reader must know, such as that the data is simulated.
    """

    name: str
    catalog: str = ""
    split: str = ""
    data: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A whole evaluation.

    Attributes:
        info: On what.
        methods: Name to what it is, in the order of showing.
        baseline: The method that the others are compared with; "" where none is.
        volumes: Each with the same metrics of all methods.
        examples: Slices to look at.

    Raises:
        ConfigError: A name is no plain word, the baseline is none of the methods, or a volume lacks a method or a metric that another has.
    """

    info: EvaluationInfo
    methods: Mapping[str, MethodInfo]
    baseline: str = ZERO_FILLED
    volumes: tuple[VolumeResult, ...]
    examples: tuple[Example, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in self.methods:
            if not _NAME.fullmatch(name) or name in _RESERVED or name.endswith(FRAMES):
                raise ConfigError(f"method {name!r}", "must be a plain word, and no name of other pictures", "Call it zero_filled, say.")
        if not self.methods or (self.baseline and self.baseline not in self.methods):
            raise ConfigError(
                f"baseline {self.baseline!r}", f"is none of the methods {', '.join(self.methods)}", 'Name one, or "" for none.'
            )
        if self.volumes and not self.metrics:
            raise ConfigError(self.info.name, "has volumes without a metric", "Score them by at least one.")
        expected = {name: set(self.metrics) for name in self.methods}
        for v in self.volumes:
            found = {name: set(quality) for name, quality in v.scores.items()}
            if found != expected:
                raise ConfigError(
                    f"{v.dataset}/{v.volume}: scores {_listed(found)}",
                    f"must be those of all volumes, {_listed(expected)}",
                    "Evaluate all volumes with the same methods and metrics.",
                )
        if any(set(example.images) != set(self.methods) for example in self.examples):
            raise ConfigError(f"pictures of {self.info.name}", f"must be of all methods, {', '.join(self.methods)}", "Keep those of each.")
        if any(example.frames and set(example.frames) != {*self.methods, TARGET} for example in self.examples):
            raise ConfigError(f"frames of {self.info.name}", f"must be of {TARGET} and of all methods", "Keep those of each, or none.")
        columns = [column for column, _, _ in self.score_columns()]
        if len(set(columns)) < len(columns):
            raise ConfigError(f"columns {', '.join(columns)}", "must each have a name of its own", "Rename a method.")

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of its volumes, in the order of showing."""
        return in_order(next(iter(self.volumes[0].scores.values()), {})) if self.volumes else ()

    @property
    def compared(self) -> tuple[str, ...]:
        """The methods beside the baseline."""
        return tuple(name for name in self.methods if name != self.baseline)

    @property
    def subject(self) -> str:
        """The one method that the evaluation is of.

        Raises:
            ConfigError: There is not exactly one beside the baseline.
        """
        if len(self.compared) != 1:
            limit = f"has {len(self.compared)} methods beside its baseline, and one is asked for"
            raise ConfigError(self.info.name, limit, "Evaluate that method by itself.")
        return self.compared[0]

    def score_columns(self) -> list[tuple[str, str, str]]:
        """Return each metric of each method: how its column is called (``psnr_model``), the method, the metric; the baseline comes last."""
        methods = [*self.compared, *([self.baseline] if self.baseline else [])]
        return [(f"{metric}_{name}", name, metric) for name in methods for metric in sorted(self.metrics)]

    def summary(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds: the info, the methods, counts, and means over volumes (``psnr_model``, …).

        A mean that is not finite, as of the PSNR of a perfect image, is None: JSON has no other word for it.
        """
        means = {column: float(np.mean([v.scores[name][metric] for v in self.volumes])) for column, name, metric in self.score_columns()}
        return {
            "format": FORMAT,
            **asdict(self.info),
            "baseline": self.baseline,
            "methods": {name: asdict(method) for name, method in self.methods.items()},
            "metrics": list(self.metrics),
            "num_volumes": len(self.volumes),
            "num_slices": sum(v.num_slices for v in self.volumes),
            "num_examples": len(self.examples),
            **{name: mean if math.isfinite(mean) else None for name, mean in means.items()},
        }


def column_name(method: str) -> str:
    """Return a method's name as a table's column has it: ``zero-filled``."""
    return method.replace("_", "-")


def method_title(method: str) -> str:
    """Return a method's name as it stands by itself: ``Zero-filled``."""
    return column_name(method).capitalize()


def shared_metrics(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """Return the metrics that all of some evaluations have, in the order of showing."""
    return in_order(set.intersection(*(set(evaluation.metrics) for evaluation in evaluations))) if evaluations else ()


def join_scores(scores: Mapping[str, Sequence[VolumeScore]], attributes: Mapping[VolumeKey, VolumeAttributes]) -> tuple[VolumeResult, ...]:
    """Put the scores of each volume by all methods side by side.

    Args:
        scores: By method.
        attributes: What each volume shows.

    Raises:
        CatalogError: The methods do not cover the same volumes, or attributes of one are missing.
    """
    by_method: dict[str, dict[VolumeKey, VolumeScore]] = {
        name: {(score.dataset, score.volume): score for score in listed} for name, listed in scores.items()
    }
    found = [set(known) for known in by_method.values()]
    unpaired = set.union(*found) - (set.intersection(*found) & attributes.keys())
    if unpaired:
        raise CatalogError(
            f"{'/'.join(min(unpaired))} and {len(unpaired) - 1} more volumes",
            f"lack the score of one of {', '.join(scores)}, or a catalog row",
            "Evaluate all methods on the same catalog.",
        )
    return tuple(
        VolumeResult(
            dataset=score.dataset,
            volume=score.volume,
            attributes=attributes[key],
            num_slices=score.num_slices,
            scores={name: known[key].quality for name, known in by_method.items()},
        )
        for key, score in next(iter(by_method.values())).items()
    )


def _listed(scores: Mapping[str, set[str]]) -> str:
    return "; ".join(f"{name}: {', '.join(sorted(metrics)) or 'none'}" for name, metrics in scores.items())
