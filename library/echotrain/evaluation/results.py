"""What an evaluation leaves behind, and where: three objects below one URI.

``metrics.csv``
    A row per volume: dataset, volume, anatomy, contrast, acceleration, num_slices, then nmse, psnr and ssim of the model and
    of the zero-filled image (``nmse_model`` … ``ssim_zero_filled``). No column names a patient.
``examples.npz``
    float32 pictures ``zero_filled_000``, ``reconstruction_000``, ``target_000``, ``masked_kspace_000`` (which evaluations before there was
    one lack), … and ``labels``, a JSON text that says what they are.
``summary.json``
    What was evaluated and the means over volumes. It is written last: where it is, the other two are whole.
"""

import csv
import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.csv_text import csv_of, plain_cell
from echotrain.errors import CatalogError, PayloadError
from echotrain.evaluation.bounded_npz import read_npz
from echotrain.metrics.collector import VolumeKey, VolumeScore, mean_quality
from echotrain.metrics.table import Quality
from echotrain.storage.bounded_read import read_at_most, read_json
from echotrain.storage.store import Store

__all__ = [
    "EXAMPLES",
    "METRICS",
    "SUMMARY",
    "Evaluation",
    "EvaluationInfo",
    "Example",
    "VolumeAttributes",
    "VolumeResult",
    "pair_scores",
    "read_evaluation",
    "score_csv",
    "write_evaluation",
]

METRICS, EXAMPLES, SUMMARY = "metrics.csv", "examples.npz", "summary.json"
_FORMAT = 1
# Three pictures of 512 x 512 are 3 MB; an evaluation keeps those of six slices unless it is told to keep more.
_LARGEST_SUMMARY, _LARGEST_METRICS, _LARGEST_EXAMPLES = 1 << 20, 64 << 20, 2 << 30
_PICTURES = ("zero_filled", "reconstruction", "target")
_MASKED_KSPACE = "masked_kspace"
_QUALITIES = ("nmse", "psnr", "ssim")


class VolumeAttributes(NamedTuple):
    """By what the volumes of an evaluation are grouped."""

    anatomy: str
    contrast: str
    acceleration: float


_SIDES = ("model", "zero_filled")
_COLUMNS = ("dataset", "volume", *VolumeAttributes._fields, "num_slices", *(f"{metric}_{side}" for side in _SIDES for metric in _QUALITIES))


@dataclass(frozen=True, kw_only=True)
class VolumeResult:
    """One volume: what it shows, and how good the model and the zero-filled image are."""

    dataset: str
    volume: str
    attributes: VolumeAttributes
    num_slices: int
    model: Quality
    zero_filled: Quality


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One slice to look at.

    Attributes:
        dataset, volume, slice: Its identity.
        attributes: What it shows.
        max_value: Maximum of the target volume, the data range of its metrics.
        zero_filled, reconstruction, target: Magnitude images (y, x) of one shape.
        masked_kspace: Root sum of squares over coils of the acquired k-space, (ky, kx), zero where nothing was acquired; None where it was
            not kept.
    """

    dataset: str
    volume: str
    slice: int
    attributes: VolumeAttributes
    max_value: float
    zero_filled: NDArray[np.float32]
    reconstruction: NDArray[np.float32]
    target: NDArray[np.float32]
    masked_kspace: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationInfo:
    """What was evaluated on what.

    Attributes:
        name: Title of the evaluation.
        model: What made the reconstructions (recipe, size).
        checkpoint: URI of its weights.
        weights_sha256: Of the file of these weights; "" where there are none, and in evaluations that were made before it was kept.
        catalog: URI of the data, with its version.
        split: Which part of it.
        note: Whatever a reader must know, such as that the data is simulated.
    """

    name: str
    model: str = ""
    checkpoint: str = ""
    weights_sha256: str = ""
    catalog: str = ""
    split: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A whole evaluation."""

    info: EvaluationInfo
    volumes: tuple[VolumeResult, ...]
    examples: tuple[Example, ...] = field(default=())

    def summary(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds: the info, counts, and means over volumes (``psnr_model``, …).

        A mean that is not finite, as of the PSNR of a perfect image, is None: JSON has no other word for it.
        """
        sides = {"model": [v.model for v in self.volumes], "zero_filled": [v.zero_filled for v in self.volumes]}
        means = {f"{metric}_{side}": mean for side, scores in sides.items() for metric, mean in mean_quality(scores).items()}
        counts = {
            "num_volumes": len(self.volumes),
            "num_slices": sum(v.num_slices for v in self.volumes),
            "num_examples": len(self.examples),
        }
        return {
            "format": _FORMAT,
            **asdict(self.info),
            **counts,
            **{name: mean if math.isfinite(mean) else None for name, mean in means.items()},
        }


def pair_scores(
    model: Sequence[VolumeScore], zero_filled: Sequence[VolumeScore], attributes: Mapping[VolumeKey, VolumeAttributes]
) -> tuple[VolumeResult, ...]:
    """Put the model's score of each volume beside the zero-filled one.

    Raises:
        CatalogError: The two do not cover the same volumes, or attributes of one are missing.
    """
    baselines = {(score.dataset, score.volume): score for score in zero_filled}
    unpaired = {(score.dataset, score.volume) for score in model} ^ baselines.keys()
    unpaired |= baselines.keys() - attributes.keys()
    if unpaired:
        raise CatalogError(
            f"{'/'.join(min(unpaired))} and {len(unpaired) - 1} more volumes",
            "lack the model's score, the zero-filled one, or a catalog row",
            "Evaluate both sides on the same catalog.",
        )
    return tuple(
        VolumeResult(
            dataset=score.dataset,
            volume=score.volume,
            attributes=attributes[score.dataset, score.volume],
            num_slices=score.num_slices,
            model=score.quality,
            zero_filled=baselines[score.dataset, score.volume].quality,
        )
        for score in model
    )


def write_evaluation(store: Store, evaluation: Evaluation) -> None:
    """Write the three objects, each atomically, the summary last.

    Raises:
        CatalogError: There is not one volume to report.
        StorageError: The store failed.
    """
    if not evaluation.volumes:
        raise CatalogError(
            evaluation.info.name, "an evaluation needs at least one volume", "Choose a split or a selection that is not empty."
        )
    nbytes = sum(getattr(example, name).size * 4 for example in evaluation.examples for name in _PICTURES)
    if nbytes > _LARGEST_EXAMPLES:
        limit = f"take {nbytes} bytes, and at most {_LARGEST_EXAMPLES} are read back"
        raise CatalogError(f"{len(evaluation.examples)} pictures", limit, "Keep fewer: --examples 6.")
    # An older summary must not vouch for the new tables while they are being written.
    store.delete(SUMMARY)
    store.write(METRICS, _metrics_csv(evaluation.volumes).encode())
    store.write(EXAMPLES, _examples_npz(evaluation.examples))
    store.write(SUMMARY, (json.dumps(evaluation.summary(), indent=2) + "\n").encode())


def read_evaluation(store: Store) -> Evaluation:
    """Read an evaluation back.

    Raises:
        ObjectMissingError: There is none, or it was not finished.
        PayloadError: Its objects are damaged or do not belong together.
    """
    try:
        summary = read_json(store, SUMMARY, _LARGEST_SUMMARY)
        volumes = _parse_metrics(read_at_most(store, METRICS, _LARGEST_METRICS).decode())
        examples = _parse_examples(read_at_most(store, EXAMPLES, _LARGEST_EXAMPLES))
        info = EvaluationInfo(**{name: str({"weights_sha256": "", **summary}[name]) for name in EvaluationInfo.__dataclass_fields__})
        counts = (summary["num_volumes"], summary["num_examples"])
    except (ValueError, KeyError, TypeError, EOFError, RecursionError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise PayloadError(store.uri, f"is not a readable evaluation ({error})", "Run the evaluation again.") from error
    if counts != (len(volumes), len(examples)) or not volumes:
        raise PayloadError(
            store.uri, f"its summary speaks of {counts[0]} volumes and its table has {len(volumes)}", "Run the evaluation again."
        )
    return Evaluation(info=info, volumes=volumes, examples=examples)


def score_csv(evaluations: Sequence[Evaluation]) -> str:
    """Return a row per evaluation and volume in full precision: the evaluation's name, then the columns of ``metrics.csv``."""
    return csv_of(
        [["evaluation", *_COLUMNS], *([evaluation.info.name, *_row(v)] for evaluation in evaluations for v in evaluation.volumes)]
    )


def _metrics_csv(volumes: Sequence[VolumeResult]) -> str:
    return csv_of([_COLUMNS, *map(_row, volumes)])


def _row(v: VolumeResult) -> list[str | int | float]:
    qualities = [getattr(v, side)[metric] for side in _SIDES for metric in _QUALITIES]
    return [v.dataset, v.volume, *v.attributes, v.num_slices, *qualities]


def _parse_metrics(text: str) -> tuple[VolumeResult, ...]:
    def quality(row: Mapping[str, str], side: str) -> Quality:
        return {metric: float(row[f"{metric}_{side}"]) for metric in _QUALITIES}

    return tuple(
        VolumeResult(
            dataset=plain_cell(row["dataset"]),
            volume=plain_cell(row["volume"]),
            attributes=VolumeAttributes(plain_cell(row["anatomy"]), plain_cell(row["contrast"]), float(row["acceleration"])),
            num_slices=int(row["num_slices"]),
            model=quality(row, "model"),
            zero_filled=quality(row, "zero_filled"),
        )
        for row in csv.DictReader(io.StringIO(text, newline=""))
    )


def _examples_npz(examples: Sequence[Example]) -> bytes:
    labels = [
        {"dataset": e.dataset, "volume": e.volume, "slice": e.slice, **e.attributes._asdict(), "max_value": e.max_value} for e in examples
    ]
    pictures = {
        f"{name}_{index:03d}": np.asarray(getattr(example, name), dtype=np.float32)
        for index, example in enumerate(examples)
        for name in (*_PICTURES, *([_MASKED_KSPACE] if example.masked_kspace is not None else []))
    }
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, labels=np.array(json.dumps(labels)), **pictures)
    return data.getvalue()


def _parse_examples(data: bytes) -> tuple[Example, ...]:
    arrays = read_npz(data, _LARGEST_EXAMPLES)
    labels = json.loads(str(arrays["labels"]))
    return tuple(
        Example(
            dataset=label["dataset"],
            volume=label["volume"],
            slice=label["slice"],
            attributes=VolumeAttributes(label["anatomy"], label["contrast"], label["acceleration"]),
            max_value=label["max_value"],
            **{name: arrays[f"{name}_{index:03d}"] for name in _PICTURES},
            masked_kspace=arrays.get(f"{_MASKED_KSPACE}_{index:03d}"),
        )
        for index, label in enumerate(labels)
    )
