"""Evaluate a trained model on a split of a catalog: the model beside the zero-filled image, volume by volume."""

import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from echotrain.config import to_dict
from echotrain.data.batch import Batch
from echotrain.data.catalog import SPLITS, SliceRow
from echotrain.data.catalog_store import load_catalog
from echotrain.data.examples import choose_examples
from echotrain.data.fetch import Fetcher, StepRows
from echotrain.data.selection import select
from echotrain.errors import CatalogError, ConfigError
from echotrain.evaluation.results import Evaluation, EvaluationInfo, Example, VolumeAttributes, pair_scores
from echotrain.log import track
from echotrain.metrics.collector import SliceKey, SliceScore, VolumeCollector, VolumeKey
from echotrain.orchestration.cluster import connect
from echotrain.orchestration.inference import Method, Subject, WorkerSetup, actor_resources
from echotrain.orchestration.mapping import Result, map_items
from echotrain.orchestration.parts import Parts
from echotrain.physics.masks import line_mask
from echotrain.storage.open import open_store
from echotrain.tasks.reconstruction import zero_filled

__all__ = ["evaluate"]

logger = logging.getLogger(__name__)

_NO_PICTURE = -1
# Masks of an evaluation depend on the volume alone.
_NO_SEED = 0


@dataclass(frozen=True)
class _Volume:
    """A volume to evaluate.

    Attributes:
        positions: Of its slices in the catalog.
        rows: The slices.
        pictured: The slice that is kept as a picture, or -1.
    """

    positions: tuple[int, ...]
    rows: tuple[SliceRow, ...]
    pictured: int

    @property
    def key(self) -> VolumeKey:
        return self.rows[0].dataset, self.rows[0].volume

    def attributes(self, subject: Subject) -> VolumeAttributes:
        row = self.rows[0]
        sampling = line_mask(subject.data.mask, row.width, seed=_NO_SEED, dataset=row.dataset, volume=row.volume, epoch=None)
        return VolumeAttributes(row.anatomy, row.contrast, sampling.acceleration)


def evaluate(
    method: Method, *, split: str = "test", num_examples: int = 6, title: str = "", note: str = "", resume_in: str = ""
) -> Evaluation:
    """Reconstruct a split and score every volume by the public fastMRI definitions.

    Args:
        method: What reconstructs, and on how many workers.
        split: ``train``, ``val``, ``test`` or ``all``.
        num_examples: Slices kept as pictures, chosen before anything is scored.
        title: Name of the evaluation; "" makes one of the run and the split.
        note: What a reader must know.
        resume_in: URI below which each volume's result is kept at once: a job that is killed goes on there. "" keeps none.

    Raises:
        ConfigError: The split does not exist, or an override does not fit.
        CatalogError: The catalog is missing, the split is empty, or slices lack a target.
        CheckpointError: The run has no usable checkpoint.
        ResourceError: The cluster is too small.
    """
    if split not in (*SPLITS, "all"):
        raise ConfigError(f"split={split!r}", f"must be one of {', '.join(SPLITS)} or all", "Use test for a final figure.")
    method, subject = method.resolved()
    catalog_uri, volumes = _find_volumes(subject, split, num_examples)
    items = [{"volume": index, "positions": list(volume.positions), "pictured": volume.pictured} for index, volume in enumerate(volumes)]
    parts = _parts(resume_in, subject, catalog_uri, items)
    known = parts.known() if parts is not None else {}
    if known:
        logger.info("%d of %d volumes were evaluated before", len(known), len(items))
    items = [item for item in items if item["volume"] not in known]
    connect()
    mapped = map_items(
        items, _VolumeScorer, WorkerSetup(method=method), method, subject, catalog_uri, parts, **actor_resources(method, len(items))
    )
    scored = itertools.chain(known.values(), mapped)
    expected = {volume.key: len(volume.positions) for volume in volumes}
    model, baseline = VolumeCollector(expected), VolumeCollector(expected)
    examples = []
    for result in track(scored, f"Evaluating {split}", total=len(volumes)):
        model.merge(_scores(result.values["model"]))
        baseline.merge(_scores(result.values["zero_filled"]))
        if result.data:
            volume = volumes[result.values["volume"]]
            examples.append(_example(volume, volume.attributes(subject), result))
    attributes = {volume.key: volume.attributes(subject) for volume in volumes}
    info = EvaluationInfo(
        name=title or f"{subject.name}, {split}",
        model=subject.model,
        checkpoint=subject.weights,
        catalog=catalog_uri,
        split=split,
        note=note,
    )
    examples.sort(key=lambda example: (example.attributes, example.dataset, example.volume))
    scores = pair_scores(model.volumes(), baseline.volumes(), attributes)
    return Evaluation(info=info, volumes=scores, examples=tuple(examples))


class _VolumeScorer:
    """Reconstructs whole volumes and reduces them to scores; one lives in each worker."""

    def __init__(self, setup: WorkerSetup, method: Method, subject: Subject, catalog_uri: str, parts: Parts | None) -> None:
        setup.prepare()
        self._reconstructor = method.load()
        self._catalog = load_catalog(catalog_uri)
        self._fetcher = Fetcher(self._catalog.root, subject.data.mask, seed=_NO_SEED)
        self._parts = parts

    @torch.inference_mode()
    def __call__(self, item: dict[str, Any]) -> Result:
        model, baseline = VolumeCollector(), VolumeCollector()
        pictures = np.zeros((3, 0, 0), np.float32)
        for batch in self._batches(item["positions"]):
            (sample,) = batch.ids
            key, peak = (sample.dataset, sample.volume, sample.slice), float(batch.max_value)
            target = batch.target[0].cpu().numpy()
            output = self._reconstructor.reconstruct(batch)[0].cpu().numpy()
            acquired = zero_filled(batch)[0].cpu().numpy()
            model.add(key, target, output, peak)
            baseline.add(key, target, acquired, peak)
            if sample.slice == item["pictured"] and output.shape == target.shape:
                pictures = np.stack([acquired, output, target]).astype(np.float32)
        shape = pictures.shape[1:]
        values = {"volume": item["volume"], "model": model.state(), "zero_filled": baseline.state(), "shape": shape}
        result = Result(values, pictures.tobytes())
        if self._parts is not None:
            self._parts.save(item["volume"], result)
        return result

    def _batches(self, positions: Sequence[int]) -> Iterator[Batch]:
        rows = self._catalog.rows(np.asarray(positions))
        steps = (StepRows([row], [1.0], 1) for row in rows)
        for step in self._fetcher.fetch(steps, epoch=None):
            for batch in step.batches:
                yield batch.to(self._reconstructor.device)


def _parts(uri: str, subject: Subject, catalog_uri: str, items: list[dict[str, Any]]) -> Parts | None:
    """Return where results of volumes are kept; they are those of this method, these masks and these slices alone."""
    if not uri:
        return None
    told = {"model": subject.model, "settings": subject.settings, "weights": subject.weights, "mask": to_dict(subject.data.mask)}
    return Parts(open_store(uri).uri, json.dumps([told, catalog_uri, items]))


def _find_volumes(subject: Subject, split: str, num_examples: int) -> tuple[str, list[_Volume]]:
    """Return the pinned catalog's URI, and the selected volumes in it."""
    data = subject.data
    catalog = load_catalog(data.catalog)
    positions = select(
        catalog.table,
        splits=SPLITS if split == "all" else (split,),
        datasets=data.datasets,
        anatomies=data.anatomies,
        contrasts=data.contrasts,
    )
    grouped: dict[VolumeKey, list[tuple[int, SliceRow]]] = {}
    for position, row in zip(positions.tolist(), catalog.rows(positions), strict=True):
        if not row.target_nbytes:
            raise CatalogError(f"{row.dataset}/{row.volume} slice {row.slice}", "has no target to compare with", "Prepare it again.")
        grouped.setdefault((row.dataset, row.volume), []).append((position, row))
    pictured = {(dataset, volume): index for dataset, volume, index in choose_examples(catalog.table.take(positions), num_examples)}
    volumes = [
        _Volume(tuple(position for position, _ in members), tuple(row for _, row in members), pictured.get(key, _NO_PICTURE))
        for key, members in grouped.items()
    ]
    return f"{catalog.root}@{catalog.version}", volumes


def _scores(state: Sequence[Any]) -> list[tuple[SliceKey, SliceScore]]:
    """Return a collector's state as it was before it travelled as JSON."""
    return [((dataset, volume, index), SliceScore(*score)) for (dataset, volume, index), score in state]


def _example(volume: _Volume, attributes: VolumeAttributes, result: Result) -> Example:
    pictures: NDArray[np.float32] = np.frombuffer(result.data, np.float32).reshape(3, *result.values["shape"])
    dataset, name = volume.key
    return Example(
        dataset=dataset,
        volume=name,
        slice=volume.pictured,
        attributes=attributes,
        max_value=volume.rows[0].max_value,
        zero_filled=pictures[0],
        reconstruction=pictures[1],
        target=pictures[2],
    )
