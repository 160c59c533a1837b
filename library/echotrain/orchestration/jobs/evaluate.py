"""Evaluate methods on a split of a catalog: each beside the zero-filled image, volume by volume."""

import dataclasses
import itertools
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from echotrain.data.catalog.containment import absolute_trusted
from echotrain.data.catalog.examples import choose_examples
from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.rows import SPLITS, Catalog, SliceRow
from echotrain.data.catalog.selection import select
from echotrain.data.catalog.store import load_catalog
from echotrain.data.fetch import Fetcher
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.measured import MeasuredBatch
from echotrain.data.samples.sample_format import StepRows
from echotrain.errors import CatalogError, ConfigError
from echotrain.evaluation.results import Evaluation, EvaluationInfo, Example, VolumeAttributes, pair_scores
from echotrain.log import track
from echotrain.metrics.collector import SliceKey, SliceScore, VolumeCollector, VolumeKey
from echotrain.orchestration.jobs.inference import Method, Reconstructor, Subject, WorkerSetup, actor_resources
from echotrain.orchestration.runtime.cluster import connect
from echotrain.orchestration.runtime.mapping import Result, map_items
from echotrain.orchestration.runtime.parts import Parts
from echotrain.storage.open import open_store
from echotrain.tasks.reconstruction import masked_kspace, zero_filled

__all__ = ["EvaluationJob", "evaluate", "evaluate_all"]

logger = logging.getLogger(__name__)

# Masks of an evaluation depend on the volume alone.
_NO_SEED = 0
# By URI and by what is trusted besides.
_Catalogs = dict[tuple[str, tuple[str, ...]], Catalog]


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """What is evaluated, and on what.

    Attributes:
        method: What reconstructs, and on how many workers.
        split: ``train``, ``val``, ``test`` or ``all``.
        num_volumes: Volumes at most, chosen to cover anatomies and contrasts, then by a hash of their names; 0 takes all.
        num_examples: Slices kept as pictures, chosen before anything is scored.
        title: Name of the evaluation; "" makes one of the method and the split.
        note: What a reader must know.
        resume_in: URI below which each volume's result is kept at once: a job that is killed goes on there. "" keeps none.
    """

    method: Method
    split: str = "test"
    num_volumes: int = 0
    num_examples: int = 6
    title: str = ""
    note: str = ""
    resume_in: str = ""

    def __post_init__(self) -> None:
        if self.split not in (*SPLITS, "all"):
            raise ConfigError(f"split={self.split!r}", f"must be one of {', '.join(SPLITS)} or all", "Use test for a final figure.")
        if self.num_volumes < 0:
            raise ConfigError(f"num_volumes={self.num_volumes}", "must be at least 0", "Use 0 for all volumes.")


def evaluate(method: Method, **options: Any) -> Evaluation:
    """Evaluate one method.

    Args:
        method: What reconstructs.
        options: The other settings of an ``EvaluationJob``.

    Raises:
        EchotrainError: As ``evaluate_all``.
    """
    ((_, evaluation),) = evaluate_all([EvaluationJob(method=method, **options)])
    return evaluation


def evaluate_all(jobs: Sequence[EvaluationJob]) -> Iterator[tuple[EvaluationJob, Evaluation]]:
    """Reconstruct, score every volume by the public fastMRI definitions, and yield each evaluation when its last volume is done.

    Jobs whose methods ask for the same workers share them, so that many small ones take little longer than one large one.

    Raises:
        ConfigError: An override does not fit.
        CatalogError: A catalog is missing, a split is empty, or slices lack a target.
        CheckpointError: A run has no usable checkpoint.
        ResourceError: The cluster is too small.
    """
    catalogs: _Catalogs = {}
    works = [_Work.of(job, catalogs) for job in jobs]
    connect()
    for _, alike in itertools.groupby(works, lambda work: (work.method.uses_gpu, work.method.threads_per_worker, work.method.workers)):
        yield from _evaluate_alike(list(alike))


@dataclass(frozen=True)
class _Volume:
    """A volume to evaluate.

    Attributes:
        positions: Of its slices in the catalog.
        rows: The slices.
        pictured: The slice that is kept as a picture, if one is.
    """

    positions: tuple[int, ...]
    rows: tuple[SliceRow, ...]
    pictured: SampleId | None

    @property
    def key(self) -> VolumeKey:
        return self.rows[0].dataset, self.rows[0].volume

    def attributes(self, subject: Subject) -> VolumeAttributes:
        row = self.rows[0]
        return VolumeAttributes(row.anatomy, row.contrast, subject.data.acceleration(row))


@dataclass(frozen=True)
class _Told:
    """What a worker must know of a job."""

    method: Method
    subject: Subject
    catalog_uri: str
    parts: Parts | None


@dataclass(frozen=True)
class _Work:
    """A job with every choice made.

    Attributes:
        job: As it was asked for.
        method, subject: What reconstructs, resolved.
        catalog_uri: The pinned catalog.
        volumes: Those to reconstruct.
    """

    job: EvaluationJob
    method: Method
    subject: Subject
    catalog_uri: str
    volumes: tuple[_Volume, ...]

    @classmethod
    def of(cls, job: EvaluationJob, catalogs: _Catalogs) -> "_Work":
        """Resolve the method and find the volumes; ``catalogs`` keeps what was loaded."""
        method, subject = job.method.resolved()
        data = dataclasses.replace(subject.data, trusted=absolute_trusted(subject.data.trusted))
        subject = dataclasses.replace(subject, data=data)
        catalog = _loaded(data.catalog, data, catalogs)
        volumes = _find_volumes(catalog, subject.data, job)
        for warning in subject.data.check(catalog.table.select(subject.data.checked)):
            logger.warning("%s", warning)
        return cls(job, method, subject, f"{catalog.root}@{catalog.version}", tuple(volumes))

    @cached_property
    def items(self) -> list[dict[str, Any]]:
        """The volumes as plain values."""
        return [
            {"volume": index, "positions": list(volume.positions), **_pictured(volume.pictured)}
            for index, volume in enumerate(self.volumes)
        ]

    @cached_property
    def told(self) -> _Told:
        """What a worker must know; its parts are those of this method, these masks and these slices alone."""
        parts = None
        if self.job.resume_in:
            subject = self.subject
            described = {
                "model": subject.model,
                "settings": subject.settings,
                "weights": subject.weights,
                "sha256": subject.sha256,
                **subject.data.of_samples,
            }
            parts = Parts(open_store(self.job.resume_in).uri, json.dumps([described, self.catalog_uri, self.items]))
        return _Told(self.method, self.subject, self.catalog_uri, parts)


class _Gathered:
    """The results of one job, as they come in."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        expected = {volume.key: len(volume.positions) for volume in work.volumes}
        self._model, self._baseline = VolumeCollector(expected), VolumeCollector(expected)
        self._examples: list[Example] = []
        self._missing = set(range(len(work.volumes)))

    def add(self, result: Result) -> Evaluation | None:
        """Take in a volume; return the evaluation when it was the last one."""
        self._model.merge(_scores(result.values["model"]))
        self._baseline.merge(_scores(result.values["zero_filled"]))
        volume = self._work.volumes[result.values["volume"]]
        if result.data:
            self._examples.append(_example(volume, volume.attributes(self._work.subject), result))
        self._missing.remove(result.values["volume"])
        return None if self._missing else self._evaluation()

    def _evaluation(self) -> Evaluation:
        job, subject = self._work.job, self._work.subject
        attributes = {volume.key: volume.attributes(subject) for volume in self._work.volumes}
        info = EvaluationInfo(
            name=job.title or f"{subject.name}, {job.split}",
            model=subject.model,
            checkpoint=subject.weights,
            weights_sha256=subject.sha256,
            catalog=self._work.catalog_uri,
            split=job.split,
            note=job.note,
        )
        examples = sorted(self._examples, key=lambda example: (example.attributes, example.dataset, example.volume))
        scores = pair_scores(self._model.volumes(), self._baseline.volumes(), attributes)
        return Evaluation(info=info, volumes=scores, examples=tuple(examples))


def _evaluate_alike(works: Sequence[_Work]) -> Iterator[tuple[EvaluationJob, Evaluation]]:
    """Evaluate with methods that ask for the same workers, one job after the other as far as that keeps all workers busy."""
    known = [(index, number, result) for index, work in enumerate(works) for number, result in _known(work).items()]
    total = sum(len(work.items) for work in works)
    if known:
        logger.info("%d of %d volumes were evaluated before", len(known), total)
    done = {(index, number) for index, number, _ in known}
    items = [{"job": index, **item} for index, work in enumerate(works) for item in work.items if (index, item["volume"]) not in done]
    method = works[0].method
    told = [work.told for work in works]
    mapped = map_items(items, _VolumeScorer, WorkerSetup(method=method), told, **actor_resources(method, len(items)))
    before = (Result({"job": index, **result.values}, result.data) for index, _, result in known)
    gathered = [_Gathered(work) for work in works]
    splits = " and ".join(dict.fromkeys(work.job.split for work in works))
    for result in track(itertools.chain(before, mapped), f"Evaluating {splits}", total=total):
        index = result.values["job"]
        evaluation = gathered[index].add(result)
        if evaluation is not None:
            yield works[index].job, evaluation


class _VolumeScorer:
    """Reconstructs whole volumes and reduces them to scores; one lives in each worker, and keeps one method at a time ready."""

    def __init__(self, setup: WorkerSetup, told: Sequence[_Told]) -> None:
        setup.prepare()
        self._told = told
        self._catalogs: _Catalogs = {}
        self._job = -1
        self._take_up(0)

    def _take_up(self, job: int) -> None:
        """Make the method of a job ready, unless it is."""
        if job == self._job:
            return
        if self._job >= 0:
            self._fetcher.close()
        told = self._told[job]
        self._catalog = _loaded(told.catalog_uri, told.subject.data, self._catalogs)
        self._reconstructor: Reconstructor = told.method.load()
        self._fetcher: Fetcher[MeasuredBatch] = Fetcher(self._catalog, told.subject.data.make_format(seed=_NO_SEED))
        self._job = job

    @torch.inference_mode()
    def __call__(self, item: Mapping[str, Any]) -> Result:
        self._take_up(item["job"])
        model, baseline = VolumeCollector(), VolumeCollector()
        pictures = np.zeros((3, 0, 0), np.float32)
        masked = np.zeros((0, 0), np.float32)
        # A slice is scored, which is NumPy's work alone, while the next one is reconstructed; one thread keeps them in order.
        with ThreadPoolExecutor(1, thread_name_prefix="echotrain-score") as scoring:
            scored: list[Future[None]] = []
            for batch in self._batches(item["positions"]):
                (sample,) = batch.ids
                peak = float(batch.max_value)
                target = batch.target[0].cpu().numpy()
                output = self._reconstructor.reconstruct(batch)[0].cpu().numpy()
                acquired = zero_filled(batch)[0].cpu().numpy()
                scored.append(scoring.submit(model.add, sample, target, output, peak))
                scored.append(scoring.submit(baseline.add, sample, target, acquired, peak))
                if (sample.slice, sample.frame) == (item["pictured"], item.get("frame")) and output.shape == target.shape:
                    pictures = np.stack([acquired, output, target]).astype(np.float32)
                    masked = masked_kspace(batch)[0].cpu().numpy().astype(np.float32)
            for each in scored:
                each.result()
        shapes = {"shape": pictures.shape[1:], "kspace_shape": masked.shape}
        values = {"volume": item["volume"], "model": model.state(), "zero_filled": baseline.state(), **shapes}
        data = pictures.tobytes() + masked.tobytes()
        parts = self._told[item["job"]].parts
        if parts is not None:
            parts.save(item["volume"], Result(values, data))
        return Result({"job": item["job"], **values}, data)

    def _batches(self, positions: Sequence[int]) -> Iterator[MeasuredBatch]:
        rows = self._catalog.rows(np.asarray(positions))
        steps = (StepRows([row], [1.0], 1) for row in rows)
        for step in self._fetcher.fetch(steps, epoch=None):
            for batch in step.batches:
                yield batch.to(self._reconstructor.device)


def _loaded(uri: str, data: DataConfig, catalogs: _Catalogs) -> Catalog:
    """Return a catalog as it was loaded before by one who trusts the same places, or load it and keep it."""
    key = uri, data.trusted
    if key not in catalogs:
        catalogs[key] = load_catalog(uri, trusted=data.trusted)
    return catalogs[key]


def _known(work: _Work) -> dict[int, Result]:
    """Return what an earlier job of the same kind has left, by the number of the volume."""
    return {} if work.told.parts is None else work.told.parts.known()


def _find_volumes(catalog: Catalog, data: DataConfig, job: EvaluationJob) -> list[_Volume]:
    """Return the selected volumes."""
    splits = SPLITS if job.split == "all" else (job.split,)
    positions = select(catalog.table, splits=splits, where=data.where)
    table = catalog.table.take(pa.array(positions))
    if job.num_volumes:
        chosen = {(sample.dataset, sample.volume) for sample in choose_examples(table, job.num_volumes)}
        keys = zip(table["dataset"].to_pylist(), table["volume"].to_pylist(), strict=True)
        positions = positions[np.array([key in chosen for key in keys])]
        table = catalog.table.take(pa.array(positions))
    grouped: dict[VolumeKey, list[tuple[int, SliceRow]]] = {}
    for position, row in zip(positions.tolist(), catalog.rows(positions), strict=True):
        if not row.target_nbytes:
            raise CatalogError(str(row.id), "has no target to compare with", "Prepare it again.")
        grouped.setdefault((row.dataset, row.volume), []).append((position, row))
    pictured = {(sample.dataset, sample.volume): sample for sample in choose_examples(table, job.num_examples)}
    return [
        _Volume(tuple(position for position, _ in members), tuple(row for _, row in members), pictured.get(key))
        for key, members in grouped.items()
    ]


def _scores(state: Sequence[Any]) -> list[tuple[SliceKey, SliceScore]]:
    """Return a collector's state as it was before it travelled as JSON."""
    # A job that an older version began has named no frames.
    return [((*key, None) if len(key) == 3 else tuple(key), SliceScore(*score)) for key, score in state]


def _pictured(sample: SampleId | None) -> dict[str, int]:
    """Return the picture's slice, -1 for none, and its frame where there are several: parts that are kept are known by these words."""
    if sample is None:
        return {"pictured": -1}
    return {"pictured": sample.slice, **({} if sample.frame is None else {"frame": sample.frame})}


def _example(volume: _Volume, attributes: VolumeAttributes, result: Result) -> Example:
    shape, kspace_shape = result.values["shape"], result.values.get("kspace_shape")
    numbers: NDArray[np.float32] = np.frombuffer(result.data, np.float32)
    pictures = numbers[: 3 * math.prod(shape)].reshape(3, *shape)
    dataset, name = volume.key
    return Example(
        dataset=dataset,
        volume=name,
        slice=-1 if volume.pictured is None else volume.pictured.slice,
        attributes=attributes,
        max_value=volume.rows[0].max_value,
        zero_filled=pictures[0],
        reconstruction=pictures[1],
        target=pictures[2],
        # A job that an older version began has left none.
        masked_kspace=None if kspace_shape is None else numbers[pictures.size :].reshape(kspace_shape),
    )
