"""What an evaluation leaves behind, and where: three objects below one URI.

``metrics.csv``
    A row per volume: dataset, volume, anatomy, contrast, acceleration, num_slices, then every metric of every method
    (``nmse_model`` … ``ssim_zero_filled``). No column names a patient.
``examples.npz``
    float32 pictures ``target_000``, one of each method (``zero_filled_000``, ``model_000``), ``masked_kspace_000`` (where it was kept), of
    a slice with frames all of them (``target_frames_000``, ``model_frames_000``), … and ``labels``, a JSON text that says what they are.
``summary.json``
    What was evaluated, by which methods and metrics, and the means over volumes. It is written last: where it is, the other two are whole.

Format 1 knew a model beside the zero-filled image and nothing else, and called the model's pictures ``reconstruction_000``.
"""

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from echotrain.csv_text import csv_of, plain_cell
from echotrain.errors import CatalogError, ConfigError, PayloadError
from echotrain.evaluation.bounded_npz import read_npz
from echotrain.evaluation.results import (
    FORMAT,
    FRAMES,
    MASKED_KSPACE,
    MODEL,
    TARGET,
    ZERO_FILLED,
    Evaluation,
    EvaluationInfo,
    Example,
    MethodInfo,
    VolumeAttributes,
    VolumeResult,
)
from echotrain.storage.bounded_read import read_at_most, read_json
from echotrain.storage.store import Store

__all__ = ["EXAMPLES", "METRICS", "SUMMARY", "read_evaluation", "score_csv", "write_evaluation"]

METRICS, EXAMPLES, SUMMARY = "metrics.csv", "examples.npz", "summary.json"
# Three pictures of 512 x 512 are 3 MB; an evaluation keeps those of six slices unless it is told to keep more.
_LARGEST_SUMMARY, _LARGEST_METRICS, _LARGEST_EXAMPLES = 1 << 20, 64 << 20, 2 << 30


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
    nbytes = sum(array.size * 4 for example in evaluation.examples for _, array in example.arrays())
    if nbytes > _LARGEST_EXAMPLES:
        limit = f"take {nbytes} bytes, and at most {_LARGEST_EXAMPLES} are read back"
        raise CatalogError(f"{len(evaluation.examples)} pictures", limit, "Keep fewer: --examples 6.")
    # An older summary must not vouch for the new tables while they are being written.
    store.delete(SUMMARY)
    store.write(METRICS, csv_of([_columns(evaluation), *(_row(evaluation, v) for v in evaluation.volumes)]).encode())
    store.write(EXAMPLES, _examples_npz(evaluation.examples))
    store.write(SUMMARY, (json.dumps(evaluation.summary(), indent=2) + "\n").encode())


def read_evaluation(store: Store) -> Evaluation:
    """Read an evaluation back.

    Raises:
        ObjectMissingError: There is none, or it was not finished.
        PayloadError: Its objects are damaged or do not belong together.
    """
    try:
        summary = _as_format_2(read_json(store, SUMMARY, _LARGEST_SUMMARY))
        methods = {str(name): MethodInfo(**{key: str(value) for key, value in said.items()}) for name, said in summary["methods"].items()}
        evaluation = Evaluation(
            info=EvaluationInfo(**{name: str({"data": "", **summary}[name]) for name in EvaluationInfo.__dataclass_fields__}),
            methods=methods,
            baseline=str(summary["baseline"]),
            volumes=_parse_metrics(read_at_most(store, METRICS, _LARGEST_METRICS).decode(), list(methods), list(summary["metrics"])),
            examples=_parse_examples(read_at_most(store, EXAMPLES, _LARGEST_EXAMPLES), summary["pictures"]),
        )
        counts = (summary["num_volumes"], summary["num_examples"])
    except (
        *(ConfigError, ValueError, KeyError, TypeError, AttributeError, EOFError),
        *(RecursionError, NotImplementedError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise PayloadError(store.uri, f"is not a readable evaluation ({error})", "Run the evaluation again.") from error
    if counts != (len(evaluation.volumes), len(evaluation.examples)) or not evaluation.volumes:
        found = f"its summary speaks of {counts[0]} volumes and its table has {len(evaluation.volumes)}"
        raise PayloadError(store.uri, found, "Run the evaluation again.")
    return evaluation


def score_csv(evaluations: Sequence[Evaluation]) -> str:
    """Return a row per evaluation and volume in full precision: the evaluation's name, then the columns of ``metrics.csv``.

    A column that an evaluation lacks is empty there.
    """
    columns = list(dict.fromkeys(column for evaluation in evaluations for column in _columns(evaluation)))
    rows = [
        (evaluation.info.name, dict(zip(_columns(evaluation), _row(evaluation, v), strict=True)))
        for evaluation in evaluations
        for v in evaluation.volumes
    ]
    return csv_of([["evaluation", *columns], *([name, *(row.get(column, "") for column in columns)] for name, row in rows)])


def _columns(evaluation: Evaluation) -> list[str]:
    return ["dataset", "volume", *VolumeAttributes._fields, "num_slices", *(column for column, _, _ in evaluation.score_columns())]


def _row(evaluation: Evaluation, v: VolumeResult) -> list[str | int | float]:
    qualities = [v.scores[name][metric] for _, name, metric in evaluation.score_columns()]
    return [v.dataset, v.volume, *v.attributes, v.num_slices, *qualities]


def _as_format_2(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary of any format in the words of the newest, and besides what the methods' pictures are called."""
    if summary["format"] == 1:
        model = {key: summary[key] for key in ("model", "checkpoint")}
        return {
            **summary,
            "baseline": ZERO_FILLED,
            "methods": {ZERO_FILLED: {}, MODEL: {**model, "weights_sha256": summary.get("weights_sha256", "")}},
            "metrics": ["nmse", "psnr", "ssim"],
            "pictures": {ZERO_FILLED: "zero_filled", MODEL: "reconstruction"},
        }
    if summary["format"] != FORMAT:
        raise ValueError(f"it is of format {summary['format']}, and formats up to {FORMAT} are known")
    return {**summary, "pictures": {name: name for name in summary["methods"]}}


def _parse_metrics(text: str, methods: Sequence[str], metrics: Sequence[str]) -> tuple[VolumeResult, ...]:
    return tuple(
        VolumeResult(
            dataset=plain_cell(row["dataset"]),
            volume=plain_cell(row["volume"]),
            attributes=VolumeAttributes(plain_cell(row["anatomy"]), plain_cell(row["contrast"]), float(row["acceleration"])),
            num_slices=int(row["num_slices"]),
            scores={name: {metric: float(row[f"{metric}_{name}"]) for metric in metrics} for name in methods},
        )
        for row in csv.DictReader(io.StringIO(text, newline=""))
    )


def _examples_npz(examples: Sequence[Example]) -> bytes:
    labels = [
        {"dataset": e.dataset, "volume": e.volume, "slice": e.slice, **e.attributes._asdict(), "max_value": e.max_value} for e in examples
    ]
    pictures = {
        f"{name}_{index:03d}": np.asarray(array, dtype=np.float32)
        for index, example in enumerate(examples)
        for name, array in example.arrays()
    }
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, labels=np.array(json.dumps(labels)), **pictures)
    return data.getvalue()


def _parse_examples(data: bytes, pictures: Mapping[str, str]) -> tuple[Example, ...]:
    """Return the examples; ``pictures`` says what those of each method are called."""
    arrays = read_npz(data, _LARGEST_EXAMPLES)
    labels = json.loads(str(arrays["labels"]))
    return tuple(
        Example(
            dataset=label["dataset"],
            volume=label["volume"],
            slice=label["slice"],
            attributes=VolumeAttributes(label["anatomy"], label["contrast"], label["acceleration"]),
            max_value=label["max_value"],
            target=arrays[f"{TARGET}_{index:03d}"],
            images={name: arrays[f"{called}_{index:03d}"] for name, called in pictures.items()},
            masked_kspace=arrays.get(f"{MASKED_KSPACE}_{index:03d}"),
            frames={name: frames for name in (*pictures, TARGET) if (frames := arrays.get(f"{name}{FRAMES}_{index:03d}")) is not None},
        )
        for index, label in enumerate(labels)
    )
