"""What each training worker does: take an order, build everything from its configuration, restore, train, answer."""

import dataclasses
import functools
import time
import warnings
from dataclasses import dataclass
from typing import Any

import ray.train
import ray.train.torch
import torch

from echotrain.config import to_dict
from echotrain.data.catalog.rows import Catalog
from echotrain.data.planned import PlannedStream
from echotrain.log import setup_logging
from echotrain.models.pretrained import NamesWeights
from echotrain.orchestration.runtime.channel import GroupChannel, Order, RunChannel
from echotrain.orchestration.runtime.cluster import DriverEnvironment, has_dashboard
from echotrain.orchestration.runtime.cluster_stream import ClusterStream
from echotrain.orchestration.runtime.notes import Notes
from echotrain.orchestration.runtime.prometheus import PrometheusSink
from echotrain.orchestration.runtime.signals import WorkerSignals, watch_preemption
from echotrain.orchestration.runtime.streaming import RayStream
from echotrain.ranks import Ranks
from echotrain.seeding import derive_seed
from echotrain.storage.guarded import GuardedStore
from echotrain.storage.lease import join
from echotrain.storage.open import open_store
from echotrain.storage.store import Store
from echotrain.training.checkpoint import CheckpointMeta, CheckpointWriter, find_checkpoint, load_file
from echotrain.training.experiment import Experiment, science
from echotrain.training.files import RunFiles
from echotrain.training.loop import Trainer
from echotrain.training.method import Method, build_method
from echotrain.training.outcome import Outcome, Signal
from echotrain.training.shared_state import restore_everywhere
from echotrain.training.sinks import CallSink, JsonLinesSink, Sink
from echotrain.training.state import TrainState
from echotrain.training.wandb_sink import WandbSink

__all__ = ["WorkerArguments", "WorkerLeaving", "catalog_identity", "open_stream", "serve"]

_POLL_S = 0.05
# Of all ranks together; a process that answers them can do some thousands.
_MOST_POLLS_PER_S = 500


class WorkerLeaving(Exception):
    """A worker was asked to end; its step is saved, and Ray starts the group again elsewhere."""


@dataclass(frozen=True, kw_only=True)
class WorkerArguments:
    """What the driver tells its workers when it starts them; everything else comes as orders.

    Attributes:
        notes: Of the job.
        group_id: Of the line over which orders come.
        environment: Storage and W&B settings of the driver's environment.
    """

    notes: Notes
    group_id: str
    environment: DriverEnvironment


def serve(arguments: WorkerArguments) -> None:
    """Do one order after another on this worker, until one sends it home.

    A worker that Ray has started again finds the order that has no outcome yet, and goes on with that run where it was saved.

    Raises:
        WorkerLeaving: The group must be started again.
        EchotrainError: A run cannot go on.
    """
    arguments.environment.apply()
    setup_logging("WARNING")
    # DDP notes once that the gradient of a 1x1 convolution has other strides of the same layout; the sums are right.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    ranks = Ranks.of_process_group(ray.train.torch.get_device())
    watch_preemption()
    channel = GroupChannel(arguments.notes, arguments.group_id)
    if ranks.is_first:
        channel.count_start()
    done, _ = channel.answered()
    poll_s = max(_POLL_S, ranks.world / _MOST_POLLS_PER_S)
    while (order := _next_order(channel, after=done, poll_s=poll_s)).experiment is not None:
        outcome = _train(order.experiment, order, ranks, arguments.notes)
        done = order.number
        if ranks.is_first:
            channel.answer(done, dataclasses.asdict(outcome))
        if ranks.device.type == "cuda":
            torch.cuda.empty_cache()


def _next_order(channel: GroupChannel, *, after: int, poll_s: float) -> Order:
    """Wait for an order. Every rank looks for itself: to wait for rank 0 in a collective would end at its time limit."""
    while (order := channel.order()) is None or order.number <= after:
        time.sleep(poll_s)
    return order


def _train(experiment: Experiment, order: Order, ranks: Ranks, notes: Notes) -> Outcome:
    """Train the experiment of an order; return how that came back."""
    channel = RunChannel(notes, order.run_id) if ranks.is_first else None
    if ranks.device.type == "cpu":
        torch.set_num_threads(experiment.threads_per_worker)
    store: Store = open_store(experiment.run_uri)
    if ranks.is_first:
        # From here on no earlier rank 0 of this run writes: one that the cluster has lost, and that still trains somewhere.
        store = GuardedStore(store, join(store, order.lease))
    method, state = _begin(experiment, store, ranks)
    signals = WorkerSignals(channel)
    stream = open_stream(experiment, ranks, notes)
    try:
        outcome = Trainer(
            experiment,
            task=method.task,
            stream=stream,
            state=state,
            ranks=ranks,
            meta=_meta(experiment, stream.catalog),
            files=_run_files(experiment, order.run_id, store, state, channel, stream.catalog) if channel is not None else None,
            signal=signals,
        ).fit()
    finally:
        signals.close()
        stream.close()
    if outcome.signal == Signal.LEAVE:
        ranks.share(None)  # Ray ends every rank as soon as one has raised, rank 0 in the midst of saving.
        raise WorkerLeaving(f"a worker was asked to end; step {outcome.global_step} is saved")
    return outcome


def open_stream(experiment: Experiment, ranks: Ranks, notes: Notes) -> PlannedStream:
    """Return a rank's stream of an experiment's data, whose samples are made where the experiment says."""
    data, seed, batch_size, config = experiment.data, experiment.seed, experiment.batch_size, experiment.stream
    place = {"rank": ranks.rank, "world_size": ranks.world}
    if config.where == "cluster":
        return ClusterStream(data, seed=seed, batch_size=batch_size, epochs=experiment.epochs, config=config, notes=notes, **place)
    return RayStream(data, seed=seed, batch_size=batch_size, config=config, **place)


def catalog_identity(catalog: Catalog) -> dict[str, Any]:
    """Return what must stay the same for a plan to stay the same, wherever the catalog lies."""
    return {"checksum": catalog.manifest["checksum"], "version": catalog.version}


def _begin(experiment: Experiment, store: Store, ranks: Ranks) -> tuple[Method, TrainState]:
    """Return what is trained, and the state that ``LATEST`` names, as rank 0 sees it, else the one before the first step.

    The latter is a function of the configuration. Whether a checkpoint fits the experiment was settled by the driver.
    """
    latest = ranks.share(find_checkpoint(store) if ranks.is_first else None)
    torch.manual_seed(derive_seed(experiment.seed, "init"))
    model = experiment.model
    method = build_method(experiment, model.initialise if latest is None and isinstance(model, NamesWeights) else None)
    method.network.to(ranks.device)
    state = TrainState(method.network, experiment.optim.build(method.network), ema_decay=experiment.ema_decay)
    if latest is not None:
        restore_everywhere(state, ranks, functools.partial(_restore, store=store, meta=latest))
    return method, state


def _restore(state: TrainState, *, store: Store, meta: CheckpointMeta) -> None:
    state.restore(load_file(store, meta, "weights"), load_file(store, meta, "train"), meta.position, meta.scores)


def _meta(experiment: Experiment, catalog: Catalog) -> CheckpointMeta:
    return CheckpointMeta(name="", position={}, science=science(experiment), config=to_dict(experiment), catalog=catalog_identity(catalog))


def _run_files(experiment: Experiment, run_id: str, store: Store, state: TrainState, channel: RunChannel, catalog: Catalog) -> RunFiles:
    """Open everything that rank 0 writes to."""
    metrics = JsonLinesSink(store, lines=state.position.lines)
    sinks: list[Sink] = [CallSink(channel.publish)]
    if experiment.wandb.enabled:
        sinks.append(
            WandbSink(
                experiment.wandb,
                store,
                run_id=run_id,
                name=experiment.wandb.name or experiment.name,
                experiment=to_dict(experiment),
                catalog=(f"{catalog.root}@{catalog.version}", catalog_identity(catalog)),
                past=metrics.records(),
            )
        )
    if has_dashboard():  # A cluster that ``connect`` started is scraped by nobody.
        sinks.append(PrometheusSink(experiment.name))
    return RunFiles(
        writer=CheckpointWriter(store, keep=experiment.keep_checkpoints),
        metrics=metrics,
        sinks=sinks,
    )
