"""Evaluate methods on a split of a catalog, volume by volume, beside each other: as a rule one of them beside the zero-filled image."""

import dataclasses
import itertools
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from echotrain.data.catalog.columns import taken
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
from echotrain.evaluation.results import (
    MODEL,
    TARGET,
    ZERO_FILLED,
    Evaluation,
    EvaluationInfo,
    Example,
    MethodInfo,
    VolumeAttributes,
    join_scores,
)
from echotrain.log import track
from echotrain.metrics.collector import SliceKey, SliceScore, VolumeCollector, VolumeKey
from echotrain.orchestration.jobs.inference import Method, Reconstructor, Subject, WorkerSetup, actor_resources
from echotrain.orchestration.jobs.zero_filled import ZeroFilledMethod
from echotrain.orchestration.runtime.cluster import connect
from echotrain.orchestration.runtime.mapping import Result, map_items
from echotrain.orchestration.runtime.parts import Parts
from echotrain.storage.open import open_store
from echotrain.tasks.reconstruction import masked_kspace

__all__ = ["EvaluationJob", "evaluate", "evaluate_all"]

logger = logging.getLogger(__name__)

# Masks of an evaluation depend on the volume alone.
_NO_SEED = 0
# What a part says besides each method's scores.
_OTHER_VALUES = ("job", "volume", "shape", "kspace_shape", "num_frames")
# Of a slice with more frames, so many are kept, evenly spaced.
_MOST_FRAMES = 32
# By URI and by what is trusted besides.
_Catalogs = dict[tuple[str, tuple[str, ...]], Catalog]


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """What is evaluated, and on what.

    Attributes:
        method: What reconstructs, and on how many workers; called ``model`` in the evaluation.
        beside: Further methods by name, given the same k-space in the same workers, the data of ``method`` whatever they say of their own;
            one that was trained must have learnt from as many coils.
        baseline: The one of all methods that the others are compared with; "" for none.
        split: ``train``, ``val``, ``test`` or ``all``.
        num_volumes: Volumes at most, chosen to cover anatomies and contrasts, then by a hash of their names; 0 takes all.
        num_examples: Slices kept as pictures, chosen before anything is scored.
        title: Name of the evaluation; "" makes one of the method and the split.
        note: What a reader must know.
        resume_in: URI below which each volume's result is kept at once: a job that is killed goes on there. "" keeps none.
    """

    method: Method
    beside: Mapping[str, Method] = field(default_factory=lambda: {ZERO_FILLED: ZeroFilledMethod()})
    baseline: str = ZERO_FILLED
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
        # Before anything is reconstructed: an evaluation refuses these names too.
        for name in self.beside:
            if name == MODEL or name in _OTHER_VALUES:
                raise ConfigError(f"method {name!r}", f"must not be called {MODEL} or {', '.join(_OTHER_VALUES)}", "Name it otherwise.")
        methods = {name: MethodInfo() for name in (*self.beside, MODEL)}
        Evaluation(info=EvaluationInfo(name=self.title), methods=methods, baseline=self.baseline, volumes=())


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

    def attributes(self, data: DataConfig) -> VolumeAttributes:
        row = self.rows[0]
        return VolumeAttributes(row.anatomy, row.contrast, data.acceleration(row))


@dataclass(frozen=True)
class _Told:
    """What a worker must know of a job: its methods in the order of showing, the data, and where parts are kept."""

    methods: Mapping[str, Method]
    data: DataConfig
    catalog_uri: str
    parts: Parts | None


@dataclass(frozen=True)
class _Work:
    """A job with every choice made.

    Attributes:
        job: As it was asked for.
        methods, subjects: What reconstructs, by name in the order of showing, resolved.
        catalog_uri: The pinned catalog.
        volumes: Those to reconstruct.
    """

    job: EvaluationJob
    methods: Mapping[str, Method]
    subjects: Mapping[str, Subject]
    catalog_uri: str
    volumes: tuple[_Volume, ...]

    @classmethod
    def of(cls, job: EvaluationJob, catalogs: _Catalogs) -> "_Work":
        """Resolve the methods and find the volumes; ``catalogs`` keeps what was loaded."""
        resolved = {name: method.resolved() for name, method in {**job.beside, MODEL: job.method}.items()}
        methods = {name: method for name, (method, _) in resolved.items()}
        data = resolved[MODEL][1].data
        data = dataclasses.replace(data, trusted=absolute_trusted(data.trusted))
        _refuse_other_coils({name: subject for name, (_, subject) in resolved.items()})
        subjects = {name: dataclasses.replace(subject, data=data) for name, (_, subject) in resolved.items()}
        catalog = _loaded(data.catalog, data, catalogs)
        volumes = _find_volumes(catalog, data, job)
        positions = np.concatenate([volume.positions for volume in volumes])
        # Of the rest of the catalog, whatever it is, nothing is read.
        for warning in data.check(taken(catalog.table, positions, data.checked)):
            logger.warning("%s", warning)
        return cls(job, methods, subjects, f"{catalog.root}@{catalog.version}", tuple(volumes))

    @property
    def method(self) -> Method:
        """The one that says on how many workers all of them run."""
        return self.methods[MODEL]

    @property
    def data(self) -> DataConfig:
        """What all methods are given."""
        return self.subjects[MODEL].data

    @cached_property
    def items(self) -> list[dict[str, Any]]:
        """The volumes as plain values."""
        return [{"volume": index, "positions": list(volume.positions), **_pictured(volume)} for index, volume in enumerate(self.volumes)]

    @cached_property
    def told(self) -> _Told:
        """What a worker must know; its parts are those of these methods, these masks and these slices alone."""
        parts = None
        if self.job.resume_in:
            parts = Parts(open_store(self.job.resume_in).uri, self.identity)
        return _Told(self.methods, self.data, self.catalog_uri, parts)

    @property
    def identity(self) -> str:
        """All that decides the results, as text."""
        described = {**_described(self.subjects[MODEL]), **self.data.of_samples}
        # As it always was where a method stands beside the zero-filled image alone.
        beside = {name: _described(subject) for name, subject in self.subjects.items() if name != MODEL}
        usual = {ZERO_FILLED: _described(ZeroFilledMethod().resolved()[1])}
        others = [] if beside == usual else [beside]
        return json.dumps([described, self.catalog_uri, self.items, *others])


class _Gathered:
    """The results of one job, as they come in."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        expected = {volume.key: len(volume.positions) for volume in work.volumes}
        self._scores = {name: VolumeCollector(expected) for name in work.methods}
        self._examples: list[Example] = []
        self._missing = set(range(len(work.volumes)))

    def add(self, result: Result) -> Evaluation | None:
        """Take in a volume; return the evaluation when it was the last one."""
        for name, collector in self._scores.items():
            collector.merge(_scores(result.values[name]))
        volume = self._work.volumes[result.values["volume"]]
        if result.data:
            self._examples.append(_example(volume, volume.attributes(self._work.data), result, list(self._scores)))
        self._missing.remove(result.values["volume"])
        return None if self._missing else self._evaluation()

    def _evaluation(self) -> Evaluation:
        job, subjects = self._work.job, self._work.subjects
        attributes = {volume.key: volume.attributes(self._work.data) for volume in self._work.volumes}
        name = job.title or f"{subjects[MODEL].name}, {job.split}"
        examples = sorted(self._examples, key=lambda example: (example.attributes, example.dataset, example.volume))
        return Evaluation(
            info=EvaluationInfo(name=name, catalog=self._work.catalog_uri, split=job.split, data=_chosen(self._work.data), note=job.note),
            methods={
                name: MethodInfo(model=subject.model, checkpoint=subject.weights, weights_sha256=subject.sha256)
                for name, subject in subjects.items()
            },
            baseline=job.baseline,
            volumes=join_scores({name: collector.volumes() for name, collector in self._scores.items()}, attributes),
            examples=tuple(examples),
        )


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
    """Reconstructs whole volumes and reduces them to scores; one lives in each worker, and keeps one job's methods at a time ready."""

    def __init__(self, setup: WorkerSetup, told: Sequence[_Told]) -> None:
        setup.prepare()
        self._told = told
        self._catalogs: _Catalogs = {}
        self._job = -1
        self._take_up(0)

    def _take_up(self, job: int) -> None:
        """Make the methods of a job ready, unless they are."""
        if job == self._job:
            return
        if self._job >= 0:
            self._fetcher.close()
        told = self._told[job]
        self._catalog = _loaded(told.catalog_uri, told.data, self._catalogs)
        self._reconstructors: dict[str, Reconstructor] = {name: method.load() for name, method in told.methods.items()}
        self._fetcher: Fetcher[MeasuredBatch] = Fetcher(self._catalog, told.data.make_format(seed=_NO_SEED))
        self._job = job

    @torch.inference_mode()
    def __call__(self, item: Mapping[str, Any]) -> Result:
        self._take_up(item["job"])
        collectors = {name: VolumeCollector() for name in self._reconstructors}
        pictures = np.zeros((len(collectors) + 1, 0, 0), np.float32)
        masked = np.zeros((0, 0), np.float32)
        moving: dict[int | None, NDArray[np.float32]] = {}
        # A slice is scored, which is NumPy's work alone, while the next one is reconstructed; one thread keeps them in order.
        with ThreadPoolExecutor(1, thread_name_prefix="echotrain-score") as scoring:
            scored: list[Future[None]] = []
            for batch in self._batches(item["positions"]):
                (sample,) = batch.ids
                peak = float(batch.max_value)
                target = batch.target[0].cpu().numpy()
                moved = {device: batch.to(device) for device in {each.device for each in self._reconstructors.values()}}
                outputs = [each.reconstruct(moved[each.device])[0].cpu().numpy() for each in self._reconstructors.values()]
                for collector, output in zip(collectors.values(), outputs, strict=True):
                    scored.append(scoring.submit(collector.add, sample, target, output, peak))
                if sample.slice == item["pictured"] and {output.shape for output in outputs} == {target.shape}:
                    shown = np.stack([*outputs, target]).astype(np.float32)
                    if sample.frame in item.get("frames", ()):
                        moving[sample.frame] = shown
                    if sample.frame == item.get("frame"):
                        pictures, masked = shown, masked_kspace(batch)[0].cpu().numpy().astype(np.float32)
            for each in scored:
                each.result()
        shapes = {"shape": pictures.shape[1:], "kspace_shape": masked.shape, **({"num_frames": len(moving)} if moving else {})}
        scores = {name: collector.state() for name, collector in collectors.items()}
        values = {"volume": item["volume"], **scores, **shapes}
        data = b"".join(array.tobytes() for array in (pictures, masked, *(moving[frame] for frame in item.get("frames", ()) if moving)))
        parts = self._told[item["job"]].parts
        if parts is not None:
            parts.save(item["volume"], Result(values, data))
        return Result({"job": item["job"], **values}, data)

    def _batches(self, positions: Sequence[int]) -> Iterator[MeasuredBatch]:
        rows = self._catalog.rows(np.asarray(positions))
        steps = (StepRows([row], [1.0], 1) for row in rows)
        for step in self._fetcher.fetch(steps, epoch=None):
            yield from step.batches


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
    positions = select(catalog.table, splits=splits, where=data.where, payload=data.payload)
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


def _refuse_other_coils(subjects: Mapping[str, Subject]) -> None:
    """Refuse a trained method that would be given other coils than it was trained on: all are given those of the data of ``model``.

    Raises:
        ConfigError: There is one.
    """
    given = getattr(subjects[MODEL].data, "coils", 0)
    for name, subject in subjects.items():
        own = getattr(subject.data, "coils", 0)
        if subject.weights and own != given:
            limit = f"learnt from data.coils={own}, and would be given data.coils={given} of {subjects[MODEL].name}"
            raise ConfigError(f"{name} ({subject.name})", limit, "Evaluate it by itself; a report puts both side by side.")


def _scores(state: Sequence[Any]) -> list[tuple[SliceKey, SliceScore]]:
    """Return a collector's state as it was before it travelled as JSON."""
    # A job that an older version began has named no frames.
    return [((*key, None) if len(key) == 3 else tuple(key), SliceScore(*score)) for key, score in state]


def _pictured(volume: _Volume) -> dict[str, Any]:
    """Return the picture's slice, -1 for none, and its frames where there are several: parts that are kept are known by these words."""
    sample = volume.pictured
    if sample is None or sample.frame is None:
        return {"pictured": -1 if sample is None else sample.slice}
    frames = sorted(row.frame for row in volume.rows if row.slice == sample.slice and row.frame is not None)
    kept = np.linspace(0, len(frames) - 1, min(len(frames), _MOST_FRAMES)).round().astype(int)
    moving = {"frames": [frames[position] for position in kept]} if len(frames) > 1 else {}
    return {"pictured": sample.slice, "frame": sample.frame, **moving}


def _chosen(data: DataConfig) -> str:
    """Return what is evaluated of a split, and how samples are made of it."""
    return json.dumps({**({"where": data.where.chosen} if data.where.chosen else {}), **data.of_samples})


def _described(subject: Subject) -> dict[str, Any]:
    return {"model": subject.model, "settings": subject.settings, "weights": subject.weights, "sha256": subject.sha256}


def _example(volume: _Volume, attributes: VolumeAttributes, result: Result, methods: Sequence[str]) -> Example:
    """Return the picture that a part holds: every method's image, the target, the masked k-space, and both of the first for every frame."""
    shape, kspace_shape = result.values["shape"], result.values.get("kspace_shape")
    numbers: NDArray[np.float32] = np.frombuffer(result.data, np.float32)
    count, num_frames = len(methods) + 1, result.values.get("num_frames", 0)
    ends = np.cumsum([count * math.prod(shape), math.prod(kspace_shape or (0,)), num_frames * count * math.prod(shape)])
    pictures = numbers[: ends[0]].reshape(count, *shape)
    moving = numbers[ends[1] : ends[2]].reshape(num_frames, count, *shape).swapaxes(0, 1)
    dataset, name = volume.key
    return Example(
        dataset=dataset,
        volume=name,
        slice=-1 if volume.pictured is None else volume.pictured.slice,
        attributes=attributes,
        max_value=volume.rows[0].max_value,
        images=dict(zip(methods, pictures, strict=False)),
        target=pictures[-1],
        # A job that an older version began has left none.
        masked_kspace=None if kspace_shape is None else numbers[ends[0] : ends[1]].reshape(kspace_shape),
        frames=dict(zip((*methods, TARGET), moving, strict=True)) if num_frames else {},
    )
